"""Where one may go, whatever a URL or the DNS says."""

"""One technology per file: what the core reaches the world with."""

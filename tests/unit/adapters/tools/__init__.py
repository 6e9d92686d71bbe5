"""Tools by name, and those that come with the project."""

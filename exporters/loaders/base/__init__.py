"""Parts of every loader, from the standard library alone."""

"""Parts of the loaders of n-gram models that need no runtime."""

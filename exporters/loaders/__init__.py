"""The code that runs a package, one file a runtime; `exporters.loaders.compose` makes how_to_load.py of it."""

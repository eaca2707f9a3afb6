"""The code that runs a package, one file a runtime; `exporters.loader_file` makes how_to_load.py of it."""

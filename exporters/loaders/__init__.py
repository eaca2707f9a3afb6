"""The code that runs a package, one module per runtime; `exporters.loaders.compose` builds how_to_load.py from it."""

"""The command line of how_to_load.py."""

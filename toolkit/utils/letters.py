"""The script of a letter. A worker of a cluster, where hbt is not installed, gets this module: it imports no other."""

import unicodedata


def script_name(char: str) -> str:
    """Return the first word of the Unicode name of a character, "" without a name: of a letter it is the script."""
    return unicodedata.name(char, "").partition(" ")[0]

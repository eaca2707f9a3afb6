"""The one error that a user can cause."""

from pathlib import Path


class InputError(Exception):
    """Something the user gave is wrong. The message says what, where and how to mend it, in one line.

    The command line prints the message alone and ends with exit code 2; every other exception is a
    bug and shows its traceback.
    """


def refuse_existing(out: Path, force: bool, option: str = "-o") -> None:
    """Raises InputError if `out` is there and may not be written over."""
    if out.exists() and not force:
        raise InputError(f"{out}: exists; give another with {option}, or --force to write over it")

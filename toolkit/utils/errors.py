"""The one error that a user can cause."""

from pathlib import Path
from typing import Any


class InputError(Exception):
    """Something the user gave is wrong. The message says what, where and how to mend it, in one line.

    The command line prints the message alone and ends with exit code 2; every other exception is a
    bug and shows its traceback.
    """


def refuse_existing(out: Path, force: bool, option: str = "-o") -> None:
    """Raises InputError if `out` is there and may not be written over."""
    if out.exists() and not force:
        raise InputError(f"{out}: exists; give another with {option}, or --force to write over it")


class CannotExport(Exception):
    """A classifier cannot be exported to a target; another target may support it."""


class NothingPasses(Exception):
    """No candidate of a target passes the quality gate. Exit code 3; no package was written."""

    def __init__(self, target: str, facts: dict[str, Any]) -> None:
        super().__init__(
            f"{target}: none of {len(facts['trials'])} candidates passes; allow more with --max-drop, try "
            "--search full or another --target, or ship the least bad one with --force"
        )
        self.target, self.facts = target, facts


def reason_of(error: Exception) -> str:
    """The first sentence of an error that may be long."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0]).replace("\t", "").rstrip(".")

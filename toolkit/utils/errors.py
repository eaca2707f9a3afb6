"""Errors that the command line prints as one line; any other exception is a bug and shows its traceback."""

import errno
from typing import Any


class InputError(Exception):
    """The input of the user is wrong. The message states what is wrong, where, and how to fix it, in one line.

    The command line prints only the message and exits with code 2.
    """


def require(condition: bool, option: str, problem: str) -> None:
    """Raise InputError with the option, the problem and its fix unless `condition` is true."""
    if not condition:
        raise InputError(f"{option}: {problem}")


class CannotExport(Exception):
    """A classifier cannot be converted to the format of a runtime; other targets may still work."""


class NothingPasses(Exception):
    """Nothing that a target made is good enough to be packaged without --force. Exit code 3; no package is written."""

    def __init__(self, target: str, facts: dict[str, Any], why: str = "", force: str = "with --force") -> None:
        """target, facts: the target and the results of its search, which are saved in the run.

        why: what is not good enough, and "package it anyway"; by default, that no candidate passes the quality gate.
        force: how to do that.
        """
        self.target, self.facts = target, facts
        self.why = why or (
            f"none of {len(facts['trials'])} candidates passes the quality gate; raise --max-drop, try --search full "
            "or another --target, or package the best one anyway"
        )
        super().__init__(f"{target}: {self.why} {force}")


_FULL_DISK = (
    "No space left on device",
    "os error 28",
    "database or disk is full",
    "PytorchStreamWriter failed writing",
    "] . unexpected pos ",  # the same writer, when it closes the file
)
"""How libraries that write files in native code report a full disk."""


_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "std::bad_alloc")
"""How native code reports that no memory is left."""


def full_disk(error: BaseException) -> str | None:
    """Return the message for an error that a full disk has caused; None for any other error."""
    cause: BaseException | None = error
    while cause is not None:
        no_space = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        if no_space or any(known in str(cause) for known in _FULL_DISK):
            file = getattr(cause, "filename", None)
            return f"No space left on device{'' if file is None else f': {file}'}; free space and"
        cause = cause.__cause__ or cause.__context__
    return None


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the machine has not enough memory; PyTorch raises a RuntimeError then."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or any(known in str(cause) for known in _NO_MEMORY):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def reason_of(error: BaseException) -> str:
    """Return the first line of an error message, and the second if the first ends with a colon."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0]).replace("\t", "").rstrip(".")

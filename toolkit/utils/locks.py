"""Locks: one command at a time works on a run, on a package, or on a new tracking store."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toolkit.utils.errors import InputError
from toolkit.utils.scratch import remove_leftovers


@contextmanager
def locked(path: Path, fix: str, wait_s: float = 0) -> Iterator[None]:
    """Hold the lock of a file or folder, which need not exist. What killed processes left beside it and
    in it is removed.

    The lock is a file beside `path`, not in it, and is removed at the end. The system releases it when a process dies.

    fix: what else the user can do, for the message.
    Raises: InputError if another command holds it for longer than `wait_s` seconds, or if it cannot be written.
    """
    from filelock import FileLock, Timeout

    file = path.absolute().with_name(f".{path.absolute().name}.lock")
    made = [folder for folder in file.parents if not folder.exists()]  # innermost first
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise InputError(
            f"{path}: another hbt command{_holder(file)} works on it; wait until it ends, stop it, or {fix}"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written in {file.parent} ({error.strerror}); {fix}") from None
    try:
        with suppress(OSError):  # on Windows, nobody else can write to a locked file
            file.write_text(f"{os.getpid()} on {platform.node()}", "utf-8")
        remove_leftovers(file.parent, path, *(folder for folder in path.rglob("*") if folder.is_dir()))
        yield
    finally:
        if os.name == "nt":  # where an open file cannot be removed, and no other process can be waiting with it open
            lock.release()
        with suppress(OSError):
            file.unlink()
        lock.release()
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _holder(file: Path) -> str:
    """Return who holds a lock, in parentheses; an empty string if that cannot be read."""
    try:
        found = file.read_text("utf-8", errors="replace")
    except OSError:
        return ""
    return f" (process {found[:100]})" if found else ""

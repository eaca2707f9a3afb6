"""Temporary files and folders whose names say which process made them, so that the next command removes what a killed
one has left."""

import os
import platform
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HOST = re.sub(r"[^0-9a-z]", "", platform.node().lower())[:20]
_NAME = re.compile(r"\.hbt-([0-9a-z]*)-(\d+)-[0-9a-f]{8}")
_OWN: set[str] = set()
"""Names that this process has made: in a container, the killed process often had the same number."""


def scratch_name() -> str:
    """Return a new name for a temporary file or folder of this process."""
    name = f".hbt-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
    _OWN.add(name)
    return name


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder in `parent`, by default in that of the system, which only the user can read.

    It is removed when the block ends. What killed processes left in `parent` is removed first.
    """
    where = Path(tempfile.gettempdir()) if parent is None else parent
    remove_leftovers(where)
    folder = where / scratch_name()
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it exists, under another name: a process that is killed meanwhile leaves no half of it."""
    removed = folder.with_name(scratch_name())
    with suppress(FileNotFoundError):
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def remove_leftovers(*folders: Path) -> None:
    """Remove the temporary files and folders in `folders` that were made by processes of this machine that ended."""
    for folder in folders:
        with suppress(OSError):
            for path in folder.iterdir():
                made = _NAME.match(path.name)
                if made and made[1] == _HOST and not _is_in_use(made[0], int(made[2])):
                    shutil.rmtree(path, ignore_errors=True)
                    path.unlink(missing_ok=True)


def _is_in_use(name: str, pid: int) -> bool:
    """Return whether the process that made a temporary file or folder may still need it."""
    if pid == os.getpid():
        return name in _OWN
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True

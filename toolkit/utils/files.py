"""Files and folders: atomic writes, safe names, sizes."""

import csv
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from toolkit.utils.scratch import remove_folder, remove_leftovers, scratch_name

MB = 1e6
PARTIAL, REPLACED = ".partial", ".replaced"


@contextmanager
def whole_folder(folder: Path, keep_replaced: bool = False) -> Iterator[Path]:
    """Yield a sibling folder to work in; it is renamed to `folder` when the block ends without an error.

    After an error the sibling is kept, so that the same work can resume in it. What a killed process left in it or
    beside it is removed first.

    keep_replaced: keep the folder that is replaced, until `remove_replaced`, since the new one is only begun. If one is
      kept already, `folder` itself was never finished and is removed instead.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    partial.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent, partial)
    yield partial
    _set_default_modes(partial)
    for path in (*partial.rglob("*"), partial):
        sync(path)
    replaced = replaced_folder(folder)
    if folder.exists() and keep_replaced and replaced.exists():
        remove_folder(folder)
    elif folder.exists():
        remove_folder(replaced)
        folder.rename(replaced)
    try:
        partial.rename(folder)
    except OSError:
        if replaced.exists():
            replaced.rename(folder)
        raise
    sync(folder.parent)
    if not keep_replaced:
        remove_replaced(folder)


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write; it replaces `file` when the block ends, and is removed after an error."""
    remove_leftovers(file.parent)
    partial = file.with_name(scratch_name() + file.suffix)
    try:
        yield partial
        sync(partial)
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(file: Path, text: str) -> None:
    """Write `file` at once: after a crash it has its old content or all of `text`. Its folder is created."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial:
        partial.write_text(text, "utf-8")


def read_json(file: Path) -> Any:
    """Return the content of a JSON file; None if there is no such file, or if it is damaged."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def sync(path: Path) -> None:
    """Wait until a file is on the disk, or until the names in a folder are, where the system can do that."""
    if path.is_dir():
        with suppress(OSError):  # Windows and some network file systems cannot
            _sync(path, os.O_RDONLY)
    else:
        _sync(path, os.O_RDWR)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _set_default_modes(folder: Path) -> None:
    """Set the modes that the user's umask gives to new files, since temporary folders are readable by their owner only.

    With the usual umask they are 755 for folders and 644 for files.
    """
    umask = os.umask(0)
    os.umask(umask)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def replaced_folder(folder: Path) -> Path:
    """Return where `whole_folder` keeps the old `folder` until the new one is complete."""
    return folder.with_name(folder.name + REPLACED)


def remove_replaced(folder: Path) -> None:
    """Remove the old `folder` that `whole_folder` has kept, if there is one."""
    remove_folder(replaced_folder(folder))


def is_partial(folder: Path) -> bool:
    """Return whether `folder` is an unfinished or a replaced folder of `whole_folder`."""
    return folder.name.endswith((PARTIAL, REPLACED))


def without_nan(value: Any) -> Any:
    """Return `value` with None for every float that is not finite, since JSON has no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def folder_size(folder: Path) -> int:
    """Return the total size in bytes of the files in `folder` and its subfolders."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def content_sha256(path: Path) -> str:
    """Return a SHA-256 of the name and content of a file, or of those of all files in a folder."""
    return files_sha256(path.rglob("*") if path.is_dir() else [path], path)


def files_sha256(files: Iterable[Path], root: Path) -> str:
    """Return a SHA-256 of the contents of files and of their names relative to `root`, in the order of the names."""
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.is_file():
            digest.update(file.relative_to(root).as_posix().encode() + b"\x00")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def file_part(text: str) -> str:
    """Return the last part of a path or hub id, made safe for a file name."""
    return re.sub(r"[^\w.\-]+", "-", text.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "model"


def write_lines(lines: Sequence[dict[str, Any]], file: Path) -> None:
    """Write rows with the same columns as CSV, at once. The folder is created."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)

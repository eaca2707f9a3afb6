"""Files and folders: atomic writes, safe names, sizes."""

import csv
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MB = 1e6
_PARTIAL, _REPLACED = ".partial", ".replaced"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a sibling folder to work in; it is renamed to `folder` when the block ends without an error.

    After an error the sibling is kept, so that the same work can resume in it.
    """
    partial = folder.with_name(folder.name + _PARTIAL)
    partial.mkdir(parents=True, exist_ok=True)
    yield partial
    if folder.exists():
        replaced = folder.with_name(folder.name + _REPLACED)
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced)
    else:
        partial.rename(folder)


def is_partial(folder: Path) -> bool:
    """Return whether `folder` is an unfinished or a replaced folder of `whole_folder`."""
    return folder.name.endswith((_PARTIAL, _REPLACED))


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


def file_part(text: str) -> str:
    """Return the last part of a path or hub id, made safe for a file name."""
    return re.sub(r"[^\w.\-]+", "-", text.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "model"


def write_lines(lines: Sequence[dict[str, Any]], file: Path) -> None:
    """Write rows with the same columns as CSV."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)

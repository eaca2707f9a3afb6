"""Check the files of a package before they are loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def open_package(
    folder: str | os.PathLike[str], parts: Sequence[str], verify: bool, build: Callable[[Path], Any]
) -> Any:
    """Return the model that `build` makes of a folder; first check the files, among them `parts`, if `verify`.

    Raises: ValueError, in one line, if a file is not as shipped or the model does not load.
    """
    root = Path(folder).resolve()
    try:
        if verify:
            check_files(root, ("config.json", "tokenizer.json", *parts))
        return build(root)
    except ImportError:  # the runtime is not installed
        raise
    except Exception as error:  # the runtimes raise their own types for a broken file
        raise ValueError(f"{folder}: does not load: {' '.join(str(error).split()) or type(error).__name__}") from error


def check_files(root: Path, needed: Sequence[str]) -> None:
    """Check that every file in manifest.json, `needed` among them, has the size and SHA-256 that it states.

    Raises: ValueError for the first file that is missing, changed, outside the folder, a link or not a regular file.
    """
    manifest = root / "manifest.json"
    if not manifest.is_file() or manifest.stat().st_size > 2**24:
        raise ValueError("manifest.json is missing or too large; verify=False loads without it")
    try:
        files = json.loads(manifest.read_text("utf-8"))["files"]
        stated = {name: (entry["size_bytes"], entry["sha256"]) for name, entry in files.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("manifest.json is malformed") from None
    for name in {**dict.fromkeys(needed), **stated}:
        file = root / name
        if name not in stated:
            raise ValueError(f"{name} is not in manifest.json")
        if file.resolve() != file or not file.is_relative_to(root) or not file.is_file():
            raise ValueError(f"{name} is missing, or is not a regular file inside the folder")
        if file.stat().st_size == stated[name][0] and sha256_of(file) == stated[name][1]:
            continue
        raise ValueError(f"{name} has changed")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, read in parts."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for part in iter(lambda: stream.read(2**20), b""):
            digest.update(part)
    return digest.hexdigest()

"""manifest.json of a package, and whether the files of the folder are those that it lists.

A package from a stranger is hostile until checked: nothing here follows a link, opens a device, reads a file whose size
was not checked before, or trusts the type of a field.
"""

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.utils.errors import InputError

SCHEMA = 1
MANIFEST_FILE = "manifest.json"
MOST_MANIFEST_BYTES, MOST_FILES, MOST_BYTES = 16 * 2**20, 1_000, 8 * 2**30
"""Larger packages are refused before anything of them is read."""
_CHUNK = 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a package, every field of the type that it must have.

    Raises: InputError if `folder` is no package, or its manifest is malformed or of another schema.
    """
    file = folder / MANIFEST_FILE
    again = "make the package again with hbt compress"
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise FileNotFoundError
        manifest = json.loads(_bounded(file, MOST_MANIFEST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: not a package (no {MANIFEST_FILE}); make one with hbt compress") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else _plain(str(error))
        raise InputError(f"{file}: not a manifest ({reason}); {again}") from None
    wrong = _first_problem(manifest)
    if wrong is not None:
        raise InputError(f"{file}: {wrong}; {again}")
    if manifest["schema"] != SCHEMA:
        raise InputError(
            f"{file}: schema {manifest['schema']}, and this hbt knows {SCHEMA}; update hbt or {again}"
        )
    return manifest


def changed_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return one line for each file that is missing, changed, not a regular file, or not in the manifest."""
    problems = []
    for name, entry in manifest["files"].items():
        reason = _file_problem(folder, name, entry)
        if reason is not None:
            problems.append(f"{_plain(name)} {reason}")
    return problems + [f"{_plain(name)} {reason}" for name, reason in _unlisted(folder, manifest["files"].keys())]


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _plain(text: str) -> str:
    """`text` without characters that move a terminal's cursor or change its colors."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:200])


def _bounded(file: Path, most: int) -> str:
    """The text of a regular file of at most so many bytes."""
    status = os.lstat(file)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size:,} bytes, more than {most:,}")
    return file.read_bytes().decode("utf-8")


def _first_problem(manifest: Any) -> str | None:
    """What is wrong with the fields of a manifest, in a few words; None if nothing is."""
    if not isinstance(manifest, dict):
        return "it is not a JSON object"
    fields: dict[str, type] = {"schema": int, "target": str, "files": dict, "lineage": dict, "golden": list}
    for name, kind in fields.items():
        if name not in manifest:
            return f"has no {name!r}"
        if not isinstance(manifest[name], kind) or isinstance(manifest[name], bool):
            return f"{name!r} is not a {kind.__name__}"
    runtime = manifest.get("runtime")
    if not isinstance(runtime, dict) or not all(isinstance(runtime.get(key), str) for key in ("name", "version")):
        return "'runtime' lacks name or version"
    if not isinstance(manifest.get("checked_on", ""), str):
        return "'checked_on' is not a str"
    return _files_problem(manifest["files"]) or _golden_problem(manifest["golden"])


def _files_problem(files: dict[str, Any]) -> str | None:
    if len(files) > MOST_FILES:
        return f"lists {len(files):,} files, more than {MOST_FILES:,}"
    total = 0
    for name, entry in files.items():
        place = PurePosixPath(name)
        inside = place.parts and not place.is_absolute() and ".." not in place.parts and str(place) == name
        if not inside or "\\" in name or ":" in name or not name.isprintable():
            return f"the path {_plain(name)!r} is not plain and inside the package"
        if not isinstance(entry, dict):
            return f"the entry of {name!r} is not a JSON object"
        size, digest = entry.get("size_bytes"), entry.get("sha256")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            return f"'size_bytes' of {name!r} is not a number of bytes"
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            return f"'sha256' of {name!r} is not a SHA-256"
        total += size
    return f"lists {total:,} bytes, more than {MOST_BYTES:,}" if total > MOST_BYTES else None


def _golden_problem(golden: list[Any]) -> str | None:
    if not golden:
        return "has no golden texts"
    for place, entry in enumerate(golden):
        if not isinstance(entry, dict):
            return f"golden text {place} is not a JSON object"
        if not isinstance(entry.get("text"), str) or not isinstance(entry.get("label"), str):
            return f"golden text {place} lacks text or label"
        scores = entry.get("scores")
        if not isinstance(scores, list) or len(scores) < 2 or not all(map(_is_score, scores)):
            return f"the scores of golden text {place} are not finite numbers from 0 to 1"
    return None


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def _file_problem(folder: Path, name: str, entry: dict[str, Any]) -> str | None:
    file = folder / name
    try:
        for parent in [*reversed(PurePosixPath(name).parents)][1:]:
            if not stat.S_ISDIR(os.lstat(folder / parent).st_mode):
                return "lies in what is not a folder"
        status = os.lstat(file)
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        if status.st_size != entry["size_bytes"]:
            return f"is not the file that was shipped ({status.st_size:,} bytes instead of {entry['size_bytes']:,})"
        return None if sha256_of(file) == entry["sha256"] else "is not the file that was shipped (another SHA-256)"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _unlisted(folder: Path, listed: Any) -> Iterator[tuple[str, str]]:
    """Name of, and what to say of, each file, link or device of the folder that the manifest does not list."""
    for base, folders, files in os.walk(folder, followlinks=False):
        for name in sorted([*files, *(each for each in folders if os.path.islink(os.path.join(base, each)))]):
            path = (Path(base) / name).relative_to(folder).as_posix()
            if path in listed or path == MANIFEST_FILE:
                continue
            if path.endswith(".pyc"):
                where = Path(path).parent.as_posix()
                yield path, f"is bytecode, which Python would run in place of the loader; remove {where}"
            else:
                yield path, "is not in the manifest"

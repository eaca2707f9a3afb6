"""manifest.json of a package, and whether the files of the folder are the ones that it lists.

A package from elsewhere is untrusted: nothing here follows a link, opens a device, reads a file whose size was not
checked before, or assumes the type of a field.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from toolkit.utils.console import printable
from toolkit.utils.errors import InputError
from toolkit.utils.overwrite import SIGNATURE_FILE

SCHEMA = 1
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES, MAX_FILES, MAX_PACKAGE_BYTES = 16 * 2**20, 1_000, 8 * 2**30
"""Larger packages are rejected before any of their files is read."""
MAX_TOLERANCE = 0.01
"""Largest difference of golden scores that a manifest may allow."""
MAX_PROBLEMS = 20
"""Number of problems after which the search for more stops."""
_CHUNK = 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a package; every field has the type that it must have.

    Raises: InputError if `folder` is not a package, or its manifest is malformed or of another schema.
    """
    file = folder / MANIFEST_FILE
    again = "create the package again with hbt compress"
    try:
        text = _read_regular(file, MAX_MANIFEST_BYTES)
        manifest = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: not a package (no {MANIFEST_FILE}); make one with hbt compress") from None
    except RecursionError:
        raise InputError(f"{file}: not a valid manifest (nested too deeply); {again}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{file}: not a valid manifest ({_short(str(reason))}); {again}") from None
    schema = manifest.get("schema", SCHEMA) if isinstance(manifest, dict) else SCHEMA
    if type(schema) is not int or schema != SCHEMA:
        shown = _short(repr(schema)) if isinstance(schema, int | str) else type(schema).__name__
        raise InputError(f"{file}: schema {shown}, but this hbt supports {SCHEMA}; update hbt or {again}")
    wrong = _first_problem(manifest)
    if wrong is not None:
        raise InputError(f"{file}: not a valid manifest ({wrong}); {again}")
    return manifest


def changed_files(folder: Path, manifest: dict[str, Any] | None = None, unlisted: bool = True) -> list[str]:
    """Return one line for each file that is missing, changed, not a regular file, or not in the manifest.

    unlisted: whether to report files that are not in the manifest. Loading does not read them.
    """
    listed = (read_manifest(folder) if manifest is None else manifest)["files"]
    problems: list[str] = []
    for name, reason in _problems(folder, listed, unlisted):
        if len(problems) == MAX_PROBLEMS:
            return [*problems, "and more"]
        problems.append(f"{_short(name)} {reason}")
    return problems


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, without following a link and without reading the file at once."""
    digest = hashlib.sha256()
    with opened_regular(file) as (stream, size):
        while size > 0 and (chunk := stream.read(min(_CHUNK, size))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def _problems(folder: Path, listed: dict[str, Any], unlisted: bool) -> Iterator[tuple[str, str]]:
    for name, entry in listed.items():
        reason = _file_problem(folder, name, entry)
        if reason is not None:
            yield name, reason
    if unlisted:
        yield from _unlisted(folder, listed)


def is_plain_path(name: str) -> bool:
    """Return whether a name is a relative path inside a folder, on every system, that can be printed."""
    place = PurePosixPath(name)
    inside = bool(place.parts) and not place.is_absolute() and ".." not in place.parts and str(place) == name
    return inside and "\\" not in name and ":" not in name and name.isprintable() and len(name) <= 255


@contextmanager
def opened_regular(file: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file and yield its stream and size. A link, FIFO or device is an error, never waited for."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not stat.S_ISREG(os.lstat(file).st_mode):  # opening a device can have effects
        raise ValueError("it is not a regular file")
    with os.fdopen(os.open(file, os.O_RDONLY | flags), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        yield stream, status.st_size


def _read_regular(file: Path, most: int) -> str:
    """Return the text of a regular file of at most `most` bytes."""
    with opened_regular(file) as (stream, size):
        if size > most:
            raise ValueError(f"it has {size:,} bytes, more than {most:,}")
        return stream.read(size).decode("utf-8")


def _short(text: str) -> str:
    return printable(text if len(text) <= 200 else f"{text[:200]}…")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these keys and values; other readers may take another one of two equal keys."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not JSON")


def _first_problem(manifest: Any) -> str | None:
    """Return what is wrong with the fields of a manifest, in a few words; None if nothing is."""
    if not isinstance(manifest, dict):
        return "it is not a JSON object"
    fields: dict[str, type] = {
        "schema": int,
        "target": str,
        "runtime": dict,
        "checked_on": list,
        "tolerance": float,
        "this_cpu_only": bool,
        "files": dict,
        "lineage": dict,
        "golden": list,
    }
    for name, kind in fields.items():
        if name not in manifest:
            return f"it has no {name!r}"
        if not isinstance(manifest[name], kind):
            return f"{name!r} is not a {kind.__name__}"
    if not manifest["checked_on"] or not all(isinstance(each, str) for each in manifest["checked_on"]):
        return "'checked_on' is not a list of names"
    if not 0 < manifest["tolerance"] <= MAX_TOLERANCE:  # true for NaN
        return f"'tolerance' is not above 0 and at most {MAX_TOLERANCE:g}"
    if not all(isinstance(manifest["runtime"].get(key), str) for key in ("name", "version")):
        return "'runtime' lacks name or version"
    versions = manifest["runtime"].get("versions", {})
    if not isinstance(versions, dict) or not all(isinstance(number, str) for number in versions.values()):
        return "'versions' of 'runtime' are not strings"
    if not isinstance(manifest.get("evaluation", {}), dict):
        return "'evaluation' is not a dict"
    lineage: dict[str, type] = {"corpus_fingerprint": str, "run": str, "corpus_settings": dict}
    for name, kind in lineage.items():
        if not isinstance(manifest["lineage"].get(name, kind()), kind):
            return f"{name!r} of 'lineage' is not a {kind.__name__}"
    return _files_problem(manifest["files"]) or _golden_problem(manifest["golden"])


def _files_problem(files: dict[str, Any]) -> str | None:
    if len(files) > MAX_FILES:
        return f"it lists {len(files):,} files, more than {MAX_FILES:,}"
    total = 0
    for name, entry in files.items():
        shown = _short(name)
        if not is_plain_path(name):
            return f"the path '{shown}' is not a plain path inside the package"
        if not isinstance(entry, dict):
            return f"the entry of '{shown}' is not a JSON object"
        size, digest = entry.get("size_bytes"), entry.get("sha256")
        if type(size) is not int or size < 0:
            return f"'size_bytes' of '{shown}' is not a number of bytes"
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            return f"'sha256' of '{shown}' is not a SHA-256"
        total += min(size, MAX_PACKAGE_BYTES + 1)
    if total > MAX_PACKAGE_BYTES:
        return f"it lists more than {MAX_PACKAGE_BYTES:,} bytes"
    return None


def _golden_problem(golden: list[Any]) -> str | None:
    if not golden:
        return "it has no golden texts"
    for i, entry in enumerate(golden):
        if not isinstance(entry, dict):
            return f"golden text {i} is not a JSON object"
        if not isinstance(entry.get("text"), str) or not isinstance(entry.get("label"), str):
            return f"golden text {i} lacks text or label"
        scores = entry.get("scores")
        if not isinstance(scores, list) or len(scores) < 2 or not all(map(_is_score, scores)):
            return f"the scores of golden text {i} are not finite numbers from 0 to 1"
        ids = entry.get("ids", [])
        if not isinstance(ids, list) or not all(type(token) is int and token >= 0 for token in ids):
            return f"the ids of golden text {i} are not token ids"
        if abs(sum(scores) - 1) > 1e-3:
            return f"the scores of golden text {i} do not sum to 1"
    return None


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # false for NaN


def _file_problem(folder: Path, name: str, entry: dict[str, Any]) -> str | None:
    """Return what is wrong with a listed file; None if nothing is."""
    file = folder / name
    try:
        for parent in [*reversed(PurePosixPath(name).parents)][1:]:
            if not stat.S_ISDIR(os.lstat(folder / parent).st_mode):
                return "is not inside a regular folder"
        status = os.lstat(file)
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        if status.st_size != entry["size_bytes"]:
            return f"has changed ({status.st_size:,} bytes instead of {entry['size_bytes']:,})"
        return None if sha256_of(file) == entry["sha256"] else "has changed (its SHA-256 differs)"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:  # replaced while it was checked
        return "is not a regular file"


def _unlisted(folder: Path, listed: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield name and problem of each file, link or device of the folder that the manifest does not list."""
    unreadable: list[OSError] = []
    collect: Callable[[OSError], None] = unreadable.append
    for base, folders, files in os.walk(folder, onerror=collect, followlinks=False):
        links = [each for each in folders if Path(base, each).is_symlink()]
        for name in sorted([*files, *links]):
            path = Path(base, name).relative_to(folder).as_posix()
            if path in listed or path == MANIFEST_FILE:
                continue
            if path == SIGNATURE_FILE and stat.S_ISREG(os.lstat(Path(base, name)).st_mode):
                continue
            if path.endswith(".pyc"):
                yield path, f"is bytecode, which Python may run instead of the loader; remove {Path(path).parent}"
            else:
                yield path, "is not in the manifest"
    for error in unreadable:
        yield str(error.filename), f"cannot be read ({error.strerror})"

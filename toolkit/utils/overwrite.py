"""Checks before anything is written: `--force` replaces only what hbt made, and a path must be writable."""

import json
import os
from pathlib import Path
from typing import Literal

from toolkit.utils.errors import InputError
from toolkit.utils.files import REPLACED
from toolkit.utils.scratch import scratch_name

Kind = Literal["package", "run"]
_OWN: dict[Kind, tuple[str, str]] = {"package": ("manifest.json", "golden"), "run": ("corpus.json", "fingerprint")}
"""Kind of folder to the JSON file in it that only hbt writes, and a key of this file."""
SIGNATURE_FILE = "model.sig"
"""The signature of a package, as `model-signing` names it; it cannot be in the manifest that it signs."""
_LONGEST_NAME = 255  # bytes, on all common file systems


def refuse_folder(out: Path, force: bool, kind: Kind, option: str = "-o") -> None:
    """Check that the folder `out` can be made, or that `force` may replace it, which must be a folder of this kind.

    Raises: InputError if it exists and `force` is not set, is not a folder that hbt made, contains other files than
      those of its package, contains the working directory, or cannot be written.
    """
    other = f"give another path with {option}" if option == "-o" else f"give another {option}"
    if os.path.lexists(out):
        if not force:
            raise InputError(f"{out}: exists; {other}, or overwrite it with --force")
        here = Path.cwd().resolve()
        if out.resolve() in (here, *here.parents):
            raise InputError(f"{out}: is or contains the working directory, which --force does not replace; {other}")
        if out.is_symlink() or not _is_made_by_hbt(out, kind):
            raise InputError(f"{out}: not a {kind} folder, and --force replaces nothing else; {other}")
        foreign = _foreign_file(out) if kind == "package" else None
        if foreign is not None:
            raise InputError(f"{out}: contains {foreign}, which is not part of the package; move it, or {other}")
    _refuse_unwritable(out, other)


def refuse_file(out: Path, force: bool, option: str) -> None:
    """Check that the file `out` can be written in an existing folder.

    Raises: InputError if it exists and `force` is not set, is a folder, or cannot be written.
    """
    if out.is_dir():
        raise InputError(f"{option} {out}: is a folder; name a file in it")
    if os.path.lexists(out) and not force:
        raise InputError(f"{out}: exists; give another path with {option}, or overwrite it with --force")
    if not out.parent.is_dir():
        raise InputError(f"{out}: cannot be written (no folder {out.parent}); create it, or give another {option}")
    _refuse_unwritable(out, f"give another path with {option}")


def refuse_no_folder(out: Path, option: str) -> None:
    """Check that files can be written into the folder `out`, which may exist. Raises: InputError if they cannot."""
    if os.path.lexists(out) and not out.is_dir():
        raise InputError(f"{option} {out}: is a file; give a folder")
    _refuse_unwritable(out / "file", f"give another path with {option}")


def _is_made_by_hbt(folder: Path, kind: Kind) -> bool:
    name, key = _OWN[kind]
    try:
        return key in json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _foreign_file(package: Path) -> str | None:
    """Return the first file of a package folder that its manifest does not list; None if there is none."""
    manifest = json.loads((package / _OWN["package"][0]).read_text("utf-8"))
    own = {*manifest.get("files", {}), _OWN["package"][0], SIGNATURE_FILE}
    for file in sorted(package.rglob("*")):
        name = file.relative_to(package).as_posix()
        if not file.is_dir() and name not in own and "__pycache__" not in file.parts:
            return name
    return None


def _refuse_unwritable(out: Path, fix: str) -> None:
    """Raise InputError if `out` cannot be made: create its first missing part under another name, and remove it."""
    if any(len(os.fsencode(part)) > _LONGEST_NAME - len(REPLACED) for part in out.parts):
        raise InputError(f"{os.fspath(out)[:40]}…: the name is too long for a file or folder; {fix}")
    folder = out.absolute().parent
    try:
        while not os.path.lexists(folder):
            folder = folder.parent
        probe = folder / scratch_name()
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise InputError(f"{out}: cannot be written in {folder} ({error.strerror}); {fix}") from None

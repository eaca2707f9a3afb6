"""The files of a package: which they are, and how they are copied without following a link."""

import shutil
from pathlib import Path

from toolkit.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, changed_files, opened_regular, read_manifest
from toolkit.signature import MAX_BYTES as MAX_SIGNATURE_BYTES, is_signed
from toolkit.utils.console import printable
from toolkit.utils.errors import InputError
from toolkit.utils.files import PARTIAL, whole_folder
from toolkit.utils.overwrite import SIGNATURE_FILE
from toolkit.utils.scratch import remove_folder

SHOWN = 3
"""Problems that a message names."""


def sizes_of(manifest: dict[str, object], signed: bool) -> dict[str, int]:
    """Return each file that a package may have, and its size; of manifest and signature, the largest size."""
    files = manifest["files"]
    assert isinstance(files, dict)
    own = {MANIFEST_FILE: MAX_MANIFEST_BYTES} | ({SIGNATURE_FILE: MAX_SIGNATURE_BYTES} if signed else {})
    return {name: int(entry["size_bytes"]) for name, entry in files.items()} | own


def refuse_changed(folder: Path) -> None:
    """Raise InputError unless the files of a folder are those of its manifest, and no others."""
    problems = changed_files(folder)
    if problems:
        raise InputError(f"{folder}: {listed(problems)}")


def copy_files(source: Path, target: Path) -> int:
    """Copy the files of a package, and no others of its folder, into a new folder; return their number."""
    sizes = sizes_of(read_manifest(source), is_signed(source))
    for name, most in sizes.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with opened_regular(source / name) as (stream, size), (target / name).open("xb") as out:
            if size > most:
                raise InputError(f"{source}: {printable(name)} has more than {most:,} bytes")
            shutil.copyfileobj(stream, out)
    return len(sizes)


def place_package(package: Path, out: Path) -> None:
    """Copy a package to `out`, which appears when it is complete, or is replaced. Call it with the lock of `out`."""
    remove_folder(out.with_name(out.name + PARTIAL))
    with whole_folder(out) as partial:
        copy_files(package, partial)


def listed(problems: list[str]) -> str:
    """Return problems as one line."""
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more

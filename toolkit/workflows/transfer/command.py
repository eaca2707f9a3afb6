"""Push a package to a place, and pull one from there: verified on arrival, complete or not there at all."""

import os
from dataclasses import dataclass
from pathlib import Path

from toolkit import package as packages
from toolkit.manifest import read_manifest
from toolkit.package import Verification
from toolkit.signature import is_signed
from toolkit.utils.errors import InputError
from toolkit.utils.files import folder_size, whole_file
from toolkit.utils.locks import locked
from toolkit.utils.overwrite import refuse_file, refuse_folder
from toolkit.utils.scratch import scratch_folder
from toolkit.workflows.transfer import hub
from toolkit.workflows.transfer.archive import unpack_archive, write_archive
from toolkit.workflows.transfer.files import copy_files, listed, place_package, refuse_changed, sizes_of
from toolkit.workflows.transfer.places import Repository, is_archive, place_of


@dataclass(frozen=True)
class Transfer:
    """A package that has arrived."""

    package: str
    """Its folder on this machine."""
    where: str
    """Where it was pushed to, or pulled from; of a repository, with the commit."""
    files: int
    size_bytes: int
    verification: Verification


def push(package: Path, where: str, force: bool = False, public: bool = False) -> Transfer:
    """Copy a verified package to a repository, a .zip file or a folder.

    force: replace the package that is there.
    public: make a new repository public instead of private.
    Raises: InputError if the package is not intact, or cannot be written there.
    """
    place = place_of(where)
    found = _verified(package, None)
    names = list(sizes_of(read_manifest(package), is_signed(package)))
    if isinstance(place, Repository):
        place = Repository(place.name, hub.upload(package, names, place, force, public))
    else:
        _refuse_inside(package, place)
        (_push_archive if is_archive(place) else _push_folder)(package, names, place, force)
    return Transfer(str(package), str(place), len(names), sum((package / name).stat().st_size for name in names), found)


def pull(where: str, folder: Path, force: bool = False, public_key: Path | None = None) -> Transfer:
    """Copy the package in a repository, a .zip file or a folder into a new folder, if it is intact.

    force: replace the package in `folder`.
    public_key: PEM file of the key that must have signed the package; None checks no signature.
    Raises: InputError if there is no package, or one that `hbt verify` would not accept; then nothing is written.
    """
    place = place_of(where)
    if isinstance(place, Path) and not os.path.lexists(place):
        raise InputError(f"{where}: no such folder or .zip file; for a repository, write hf:owner/name")
    refuse_folder(folder, force, "package", "FOLDER")
    with locked(folder, "give another FOLDER"), scratch_folder(folder.absolute().parent) as work:
        fetched = work / "package"
        try:
            if isinstance(place, Repository):
                place = hub.download(place, fetched)
            elif place.is_dir():
                refuse_changed(place)
                copy_files(place, fetched)
            else:
                unpack_archive(place, fetched)
            found = _verified(fetched, public_key)
        except InputError as error:  # about a folder that will be gone
            raise InputError(str(error).replace(str(fetched), where)) from None
        files, size = sum(file.is_file() for file in fetched.rglob("*")), folder_size(fetched)
        place_package(fetched, folder)
    return Transfer(str(folder), str(place), files, size, found)


def _verified(package: Path, public_key: Path | None) -> Verification:
    found = packages.verify(package, public_key)
    if found.problems:
        raise InputError(f"{package}: {listed(found.problems)}")
    return found


def _refuse_inside(package: Path, out: Path) -> None:
    if out.resolve().is_relative_to(package.resolve()):
        raise InputError(f"{out}: is in the package itself; give another WHERE")


def _push_folder(package: Path, names: list[str], out: Path, force: bool) -> None:
    refuse_folder(out, force, "package", "WHERE")
    with locked(out, "give another WHERE"):
        place_package(package, out)
        refuse_changed(out)


def _push_archive(package: Path, names: list[str], out: Path, force: bool) -> None:
    refuse_file(out, force, "WHERE")
    with whole_file(out) as partial:
        write_archive(package, names, partial, package.resolve().name)
        with scratch_folder(out.absolute().parent) as work:
            unpack_archive(partial, work / "package")
            refuse_changed(work / "package")

"""A package as a .zip file. A file from elsewhere is untrusted: names, kinds and sizes are checked before unpacking."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from toolkit.manifest import (
    MANIFEST_FILE,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    MAX_PACKAGE_BYTES,
    is_plain_path,
    opened_regular,
    read_manifest,
)
from toolkit.utils.console import printable
from toolkit.utils.errors import InputError
from toolkit.utils.overwrite import SIGNATURE_FILE
from toolkit.workflows.transfer.files import sizes_of

MAX_RATIO, ANY_RATIO_BYTES = 100, 100 * 2**20
"""Files of more than so many bytes in all may not be so many times as large as the archive."""
_DATE = (1980, 1, 1, 0, 0, 0)  # the same files give the same archive
_END = b"PK\x05\x06"
_CHUNK = 2**20
_FIX = "get the package again, or pack its folder with hbt push"


def write_archive(package: Path, names: Sequence[str], file: Path, root: str) -> None:
    """Write files of a package as an archive with one folder, `root`."""
    try:
        with zipfile.ZipFile(file, "x", zipfile.ZIP_DEFLATED, allowZip64=False) as archive:
            for name in names:
                entry = zipfile.ZipInfo(f"{root}/{name}", _DATE)
                entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                with opened_regular(package / name) as (stream, size):
                    entry.file_size = size
                    with archive.open(entry, "w") as out:
                        while chunk := stream.read(_CHUNK):
                            out.write(chunk)
    except zipfile.LargeZipFile:
        raise InputError(f"{package}: too large for a .zip file (4 GB); give a folder or hf:owner/name") from None


def unpack_archive(file: Path, folder: Path) -> None:
    """Write the files of the package in an archive into `folder`.

    Raises: InputError if the archive has anything but the files of one package, with their sizes.
    """
    try:
        with opened_regular(file.resolve()) as (stream, size):
            _refuse_many_entries(stream, size)
            with zipfile.ZipFile(stream) as archive:
                _unpack(archive, size, folder)
    except PermissionError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); {_FIX}") from None
    except _Refused as refused:
        raise InputError(f"{file}: {refused}; {_FIX}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError, ValueError, struct.error) as e:
        raise InputError(f"{file}: not a usable .zip file ({printable(str(e)[:200])}); {_FIX}") from None


class _Refused(Exception):
    """What is wrong with an archive."""


def _refuse_many_entries(stream: BinaryIO, size: int) -> None:
    """Refuse an archive with a long table of contents before it is read, and one in the format for large archives."""
    length = min(size, 22 + 0xFFFF + 20)
    stream.seek(size - length)
    tail = stream.read(length)
    last = len(tail) - 22  # the place of the table's summary, unless a comment follows
    at = last if tail[last:].startswith(_END) and tail.endswith(b"\0\0") else tail.rfind(_END)
    if not 0 <= at <= last:
        raise _Refused("not a .zip file")
    entries, table_bytes = struct.unpack_from("<HL", tail, at + 10)
    if entries > 2 * MAX_FILES or table_bytes > MAX_MANIFEST_BYTES or tail[max(at - 20, 0) :].startswith(b"PK\x06\x07"):
        raise _Refused(f"has {entries:,} entries, more than a package")
    stream.seek(0)


def _unpack(archive: zipfile.ZipFile, archive_bytes: int, folder: Path) -> None:
    members = _members(archive)
    root = _root(members)
    named = {name.removeprefix(root): info for name, info in members.items() if name.startswith(root)}
    _extract(archive, named[MANIFEST_FILE], folder / MANIFEST_FILE, MAX_MANIFEST_BYTES)
    sizes = sizes_of(read_manifest(folder), SIGNATURE_FILE in named)
    for name in members:
        if not name.startswith(root) or name.removeprefix(root) not in sizes:
            raise _Refused(f"{_shown(name)} is not in the manifest")
    total = 0
    for name, most in sizes.items():
        if name not in named:
            raise _Refused(f"{_shown(name)} is missing")
        stated = named[name].file_size
        if stated > most or (name not in (MANIFEST_FILE, SIGNATURE_FILE) and stated != most):
            raise _Refused(f"{_shown(name)} has {stated:,} bytes instead of {most:,}")
        total += stated
    if total > MAX_PACKAGE_BYTES or total > max(ANY_RATIO_BYTES, MAX_RATIO * archive_bytes):
        raise _Refused(f"{archive_bytes:,} bytes would become {total:,}, more than a package")
    for name in sizes:
        if name != MANIFEST_FILE:
            _extract(archive, named[name], folder / name, named[name].file_size)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files in an archive by name, of which each has a plain path and is no link."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename
        if name != info.orig_filename or not is_plain_path(name.removesuffix("/")):
            raise _Refused(f"the path '{_shown(info.orig_filename)}' is not a plain path inside the package")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
            raise _Refused(f"{_shown(name)} is a link or a device")
        if info.is_dir():
            continue
        if name in found:
            raise _Refused(f"{_shown(name)} is there twice")
        if info.flag_bits & 1:
            raise _Refused(f"{_shown(name)} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Refused(f"{_shown(name)} is compressed by an unusual method")
        found[name] = info
    return found


def _root(members: dict[str, zipfile.ZipInfo]) -> str:
    """Return the folder of the package in an archive, with a slash; an empty string if it is at the top."""
    if MANIFEST_FILE in members:
        return ""
    roots = {PurePosixPath(name).parts[0] for name in members}
    if len(roots) == 1 and (root := f"{roots.pop()}/") + MANIFEST_FILE in members:
        return root
    raise _Refused(f"not a package (no {MANIFEST_FILE} at the top or in its only folder)")


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path, most: int) -> None:
    """Write one file of an archive, which has at most `most` bytes, whatever the archive says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(info) as stream, file.open("xb") as out:
        while chunk := stream.read(_CHUNK):
            written += len(chunk)
            if written > most:
                raise _Refused(f"{_shown(info.filename)} has more than {most:,} bytes")
            out.write(chunk)


def _shown(name: str) -> str:
    return printable(name if len(name) <= 200 else f"{name[:200]}…")

"""A package in a model repository on the Hugging Face hub: one commit each, compared with what was sent."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, read_manifest, sha256_of
from toolkit.utils.console import printable
from toolkit.utils.errors import InputError, full_disk, reason_of
from toolkit.utils.hub import ANSWER_S, NoHub, hub_address, quiet_client, require_answer, shows_downloads
from toolkit.utils.overwrite import SIGNATURE_FILE
from toolkit.utils.scratch import scratch_folder
from toolkit.workflows.transfer.files import listed, sizes_of
from toolkit.workflows.transfer.places import Repository

OF_GIT = ".gitattributes"
"""File that the hub puts into every repository."""
LOG_IN = "log in with hf auth login, or set HF_TOKEN"


def upload(package: Path, names: Sequence[str], where: Repository, force: bool, public: bool) -> str:
    """Upload files of a package as one commit, and return its hash. A new repository is private unless `public`.

    force: replace the package that is there; the old one stays in the history.
    Raises: InputError if the hub does not answer or refuses, or if the repository has files and `force` is not set, or
        files that are not of a package.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    api = HfApi()
    _require_hub(where)
    quiet_client(shows_downloads())
    with _errors_of(where):
        try:
            there = _files(api, where.name, where.revision)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            api.create_repo(where.name, private=not public)
            there = _files(api, where.name, where.revision)
    sha, old = there
    if old.keys() - {OF_GIT}:
        _refuse_foreign(where, sha, old, force)
    adds = [CommitOperationAdd(name, package / name) for name in names]
    deletes = [CommitOperationDelete(name) for name in sorted(old.keys() - {OF_GIT, *names})]
    with _errors_of(where), warnings.catch_warnings(action="ignore"):
        done = api.create_commit(
            where.name,
            [*adds, *deletes],
            commit_message=f"hbt push {package.resolve().name}",
            revision=where.revision,
            parent_commit=sha,
        )
        _, new = _files(api, where.name, done.oid)
    wrong = [name for name in names if name not in new or not _is_same(package / name, new[name])]
    if wrong:
        raise InputError(f"{where}: {listed(wrong)} did not arrive as sent; run the same command with --force")
    return str(done.oid)


def download(where: Repository, folder: Path) -> Repository:
    """Download the files of the package in a repository into `folder`; return the repository at its commit.

    Raises: InputError if the hub does not answer or refuses, or if the repository has anything but one package.
    """
    from huggingface_hub import HfApi, hf_hub_download

    _require_hub(where)
    with _errors_of(where):
        sha, there = _files(HfApi(), where.name, where.revision)
    pinned = Repository(where.name, sha)
    sizes = sizes_of(_manifest(pinned, there, folder), SIGNATURE_FILE in there)
    unlisted = sorted(there.keys() - sizes.keys() - {OF_GIT})
    if unlisted:
        raise InputError(f"{where}: {printable(unlisted[0][:200])} is not in the manifest; ask its owner to remove it")
    for name, most in sizes.items():
        size = there[name].size if name in there else None
        if size is None or size > most or (name not in (MANIFEST_FILE, SIGNATURE_FILE) and size != most):
            found = "is missing" if size is None else f"has {size:,} bytes instead of {most:,}"
            raise InputError(f"{where}: {printable(name)} {found}; ask its owner for another")
    with _errors_of(where), scratch_folder(folder.parent) as work:
        quiet_client(shows_downloads())
        for name in sizes:
            if name != MANIFEST_FILE:
                file = hf_hub_download(where.name, name, revision=sha, local_dir=work)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Path(file).rename(folder / name)
    return pinned


def _manifest(where: Repository, there: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Download the manifest of the package in a repository into `folder` and return it."""
    from huggingface_hub import hf_hub_download

    if MANIFEST_FILE not in there:
        raise InputError(f"{where}: not a package of hbt (no {MANIFEST_FILE})")
    if (there[MANIFEST_FILE].size or 0) > MAX_MANIFEST_BYTES:
        raise InputError(f"{where}: {MANIFEST_FILE} has more than {MAX_MANIFEST_BYTES:,} bytes; this is no package")
    with _errors_of(where), scratch_folder(folder.parent) as work:
        quiet_client(False)
        file = hf_hub_download(where.name, MANIFEST_FILE, revision=where.revision, local_dir=work)
        folder.mkdir(parents=True, exist_ok=True)
        Path(file).rename(folder / MANIFEST_FILE)
    return read_manifest(folder)


def _refuse_foreign(where: Repository, sha: str, old: dict[str, Any], force: bool) -> None:
    """Raise InputError if the files of a repository may not be replaced by a package."""
    other = "give another hf:owner/name"
    if not force:
        raise InputError(f"{where}: has files; {other}, or replace its package with --force")
    if MANIFEST_FILE not in old:
        raise InputError(f"{where}: not a package, and --force replaces nothing else; {other}")
    with scratch_folder() as work:
        manifest = _manifest(Repository(where.name, sha), old, work / "package")
    foreign = sorted(old.keys() - sizes_of(manifest, True).keys() - {OF_GIT})
    if foreign:
        raise InputError(f"{where}: has {printable(foreign[0])}, which is not part of the package; {other}")


def _files(api: Any, name: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """Return the commit of a revision, and its files with their sizes and hashes."""
    info = api.model_info(name, revision=revision, files_metadata=True, timeout=6 * ANSWER_S)
    return str(info.sha), {file.rfilename: file for file in info.siblings or []}


def _is_same(file: Path, stored: Any) -> bool:
    """Return whether the hub has a file as it is here, by the hash of its content or, if it is small, of git."""
    if stored.lfs is not None:
        return bool(stored.lfs.sha256 == sha256_of(file))
    content = file.read_bytes()
    own = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return bool(stored.blob_id == own.hexdigest())


def _require_hub(where: Repository) -> None:
    try:
        require_answer(where.name)
    except NoHub as problem:
        raise InputError(f"{where}: {problem}; connect to the network, or give a folder or a .zip file") from None


@contextmanager
def _errors_of(where: Repository) -> Iterator[None]:
    """Raise what the client of the hub raises as InputError."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except InputError:
        raise
    except RevisionNotFoundError:
        raise InputError(f"{where}: no such revision; give a branch, a tag or a commit") from None
    except GatedRepoError:
        raise InputError(f"{where}: accept its conditions at {hub_address()}/{where.name}, then {LOG_IN}") from None
    except RepositoryNotFoundError:
        raise InputError(f"{where}: no such repository, or it is private; check the name, {LOG_IN}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        fix = {401: LOG_IN, 403: f"{LOG_IN} to a token that may write", 409: "give another hf:owner/name"}
        raise InputError(f"{where}: {printable(reason_of(error))}; {fix.get(status, 'try again later')}") from None
    except Exception as error:  # the client raises those of its HTTP library, which differs by version
        if full_disk(error):
            raise
        raise InputError(f"{where}: {printable(reason_of(error))}; try again later") from error

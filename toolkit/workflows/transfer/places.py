"""Where a package is or goes: a Hugging Face repository, a .zip file, or a folder."""

import re
from dataclasses import dataclass
from pathlib import Path

from toolkit.utils.console import printable
from toolkit.utils.errors import InputError

HUB, ZIP = "hf:", ".zip"
_REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True)
class Repository:
    """A model repository on the hub."""

    name: str
    revision: str | None = None
    """Branch, tag or commit; None is the main branch."""

    def __str__(self) -> str:
        return f"{HUB}{self.name}{f'@{self.revision}' if self.revision else ''}"


def place_of(where: str) -> Repository | Path:
    """Return the repository of hf:owner/name[@revision], else the path. Raises: InputError if it is neither."""
    if not where.strip() or "://" in where:
        raise InputError(f"WHERE {printable(where[:200])!r}: give a folder, a .zip file or hf:owner/name")
    if not where.startswith(HUB):
        return Path(where)
    found = _REPOSITORY.fullmatch(where.removeprefix(HUB))
    if found is None or not _is_valid(found["name"]):
        raise InputError(
            f"{printable(where[:200])}: not the name of a repository; write hf:owner/name, or hf:owner/name@revision"
        )
    return Repository(found["name"], found["revision"])


def is_archive(path: Path) -> bool:
    """Return whether a path names a .zip file."""
    return path.suffix.lower() == ZIP and not path.is_dir()


def _is_valid(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True

"""The packages that are served: each is verified and loaded before it answers, and replaced at once."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exporters.loaders.command.label_file import ANSWER
from exporters.registry import LoadedArtifact
from toolkit import package as packages
from toolkit.evaluation.reliability.scope import COLUMN
from toolkit.manifest import MANIFEST_FILE, sha256_of
from toolkit.utils.errors import InputError
from toolkit.workflows.scoring.flags import Flags, flags_of

THREADS = 1
"""Of each model; `--workers` uses more cores."""
State = tuple[tuple[str, int, int], ...]
"""Name, size and time of each file of a folder: if one differs, it may be another package."""


@dataclass(frozen=True)
class Served:
    """A package in memory. A request keeps the one with which it began."""

    name: str
    folder: Path
    version: str
    """SHA-256 of its manifest, which has those of all its files."""
    model: LoadedArtifact
    labels: tuple[str, ...]
    flags: Flags = field(default_factory=Flags)

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return label and probability of each text, scored by itself, and its flags as in files of `hbt predict`.

        A text in scope has None as `out_of_scope`.
        """
        scored = packages.predict(self.model, texts)
        found: list[dict[str, Any]] = [{"label": label, "probability": round(chance, 6)} for label, chance in scored]
        if ANSWER in self.flags.columns:
            found = [each | {ANSWER: self.flags.answer(each["label"], each["probability"])} for each in found]
        if COLUMN in self.flags.columns:
            reasons = self.flags.reasons(texts)
            found = [each | {COLUMN: reason or None} for each, reason in zip(found, reasons, strict=True)]
        return found

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 (texts, labels)."""
        return np.asarray(self.model.predict_proba(texts))


def verified(name: str, folder: Path) -> Served:
    """Return a package after a check of its files and of its golden scores.

    Raises: InputError if it is not what its manifest states, or is replaced meanwhile.
    """
    found = packages.verify(folder)
    if found.problems:
        raise InputError(f"{folder}: {'; '.join(found.problems)}")
    return loaded(name, folder)


def loaded(name: str, folder: Path) -> Served:
    """Return a package after a check of its files. Raises: InputError as `verified`."""
    before = _version(folder)
    model = packages.load(folder, THREADS)
    labels = tuple(getattr(model, "labels", ())) or packages.labels_of(folder)
    if _version(folder) != before:
        raise InputError(f"{folder}: has been replaced while it was loaded")
    return Served(name, folder, before, model, labels, flags_of(folder))


def _version(folder: Path) -> str:
    try:
        return sha256_of(folder / MANIFEST_FILE)
    except (OSError, ValueError):
        raise InputError(f"{folder}: not a package (no {MANIFEST_FILE}); make one with hbt compress") from None


def state_of(folder: Path) -> State:
    """Return the state of the files of a folder; empty if there is none, as while it is replaced."""
    try:
        found = [(file, file.stat()) for file in sorted(folder.rglob("*")) if file.is_file()]
    except OSError:
        return ()
    return tuple((file.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns) for file, stat in found)


class Models:
    """The packages by name. A lookup never waits for a package that is being loaded."""

    def __init__(self, served: Sequence[Served], check: Callable[[Served], None]) -> None:
        """check: raises InputError for a package that cannot replace one of these, although it is intact."""
        self.check = check
        self.default = served[0].name
        self._by_name = {each.name: each for each in served}
        self._seen = {each.name: state_of(each.folder) for each in served}
        self._lock = threading.Lock()

    def all(self) -> list[Served]:
        """Return the packages in the order in which they were given."""
        return list(self._by_name.values())

    def get(self, name: str | None) -> Served | None:
        """Return the package of this name; with None, the first; None if there is no such package."""
        return self._by_name.get(self.default if name is None else name)

    def refresh(self, name: str) -> bool | str:
        """Replace a package if there is another one in its folder; return whether it was, or why it is refused.

        The new one is verified and loaded before it replaces the old one, which answers until then.
        """
        with self._lock:
            old = self._by_name[name]
            state = state_of(old.folder)
            if not state or state == self._seen[name]:
                return False
            self._seen[name] = state
            try:
                if _version(old.folder) == old.version:
                    return False
                new = verified(name, old.folder)
                self.check(new)
            except InputError as error:
                return str(error)
            self._by_name[name] = new
            return True

"""Which targets there are, and what each must offer."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from toolkit.errors import InputError
from toolkit.predictor import Predictor

if TYPE_CHECKING:
    from toolkit.classifier import Classifier

_MODULES = {"onnx-int8": "exporters.onnx_int8", "onnx-fp32": "exporters.onnx_fp32"}


@dataclass(frozen=True)
class Artefact:
    """The file that a target produced, and what was found while producing it."""

    file: Path
    target: str
    details: dict[str, Any]


class LoadedArtefact(Predictor, Protocol):
    """A predictor that also gives logits."""

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """float32 (texts, labels); each text is scored alone unless a batch size is given."""
        ...

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """float32 (texts, labels)."""
        ...

    def predict(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Label and its probability for each text."""
        ...


class Exporter(Protocol):
    """One target and the one runtime it knows. Its module imports nothing that a package does not need."""

    name: str
    distributions: tuple[str, ...]
    """What the package needs at run time; the first is the runtime."""
    loader: Path
    """The file that ships as how_to_load.py."""

    def available(self) -> str | None:
        """None if the target can be made here, else the reason and the `pip install` that mends it."""
        ...

    def export(self, classifier: "Classifier", texts: Sequence[str], out: Path) -> Artefact:
        """Write the artefact into the folder `out`. texts: validation rows, for choices and checks."""
        ...

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtefact:
        """The predictor of a package folder."""
        ...


def targets() -> list[str]:
    """Names of all targets."""
    return list(_MODULES)


def exporter(target: str) -> Exporter:
    """The exporter of a target. Raises InputError if there is none of that name."""
    if target not in _MODULES:
        raise InputError(f"target {target!r}: no such target; there are {', '.join(_MODULES)}")
    return importlib.import_module(_MODULES[target]).EXPORTER

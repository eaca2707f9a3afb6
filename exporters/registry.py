"""Which targets there are, and what each must offer. Other distributions add theirs as entry points of GROUP."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from toolkit.evaluation.predictor import Predictor
from toolkit.utils.errors import InputError

if TYPE_CHECKING:
    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

GROUP = "hbt.exporters"
"""Entry points of this group are called with nothing and give an Exporter; their names are those of the targets."""
_MODULES = {
    "onnx-int8": "exporters.onnx_int8",
    "onnx-fp32": "exporters.onnx_fp32",
    "onnx-fp16": "exporters.onnx_fp16",
    "onnx-int4": "exporters.onnx_int4",
    "torch-int8": "exporters.torch_int8",
    "openvino-int8": "exporters.openvino_int8",
}
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Evidence:
    """Rows that an exporter may look at."""

    calibration: Sequence[str]
    """Training texts, which tell the ranges of activations."""
    validation: Sequence[str]
    """Texts by which a form is chosen."""
    labels: np.ndarray
    """int (validation,): their labels."""
    threshold: float | None
    """Of the classifier; None for more than two labels."""


@dataclass(frozen=True)
class Candidate:
    """One form that a target can take."""

    name: str
    """For people, in a few words: `static, smoothed`."""
    write: Callable[[Path, frozenset[str]], dict[str, Any]]
    """Writes the artifact into a folder, the named parts of it in float; returns what is to know of it."""
    parts: tuple[str, ...] = ()
    """What can be left in float when a form loses too much."""


class LoadedArtifact(Predictor, Protocol):
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

    @property
    def name(self) -> str:
        """Of the target."""
        ...

    @property
    def summary(self) -> str:
        """One line for `hbt targets`."""
        ...

    @property
    def promise(self) -> Literal["faster", "smaller", "same"]:
        """What it must be beside the classifier in single precision, or it does not pass."""
        ...

    @property
    def reference(self) -> str | None:
        """The target that is the classifier in single precision for this one; None for torch itself."""
        ...

    @property
    def file(self) -> str:
        """Name of the artifact."""
        ...

    @property
    def distributions(self) -> tuple[str, ...]:
        """What the package needs at run time; the first is the runtime."""
        ...

    def available(self) -> str | None:
        """None if the target can be made here, else the reason and the `pip install` that mends it."""
        ...

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", single: Path
    ) -> list[Candidate]:
        """The forms to try, the one to take without a search first.

        single: folder with the artifact of `reference`; of no use where that is None.
        Raises: InputError if this classifier has no such form.
        """
        ...

    def loader(self, model_type: str) -> str:
        """Return the text of how_to_load.py; `model_type` is that of config.json.

        The module that this text is must have `load(folder, threads)`, which returns a LoadedArtifact.
        """
        ...

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtifact:
        """The predictor of a package folder."""
        ...


def targets() -> dict[str, str]:
    """Names of all targets, each with the distribution that brings it."""
    return dict.fromkeys(_MODULES, "hbt") | {name: _distribution(found) for name, found in _outside().items()}


def exporter(target: str) -> Exporter:
    """The exporter of a target. Raises InputError if there is none of that name, or if that of others is broken."""
    if target in _MODULES:
        return importlib.import_module(_MODULES[target]).EXPORTER
    outside = _outside()
    if target not in outside:
        raise InputError(f"--target {target}: no such target; there are {', '.join(targets())}")
    try:
        return outside[target].load()()
    except Exception as error:  # whatever the code of others raises
        raise InputError(
            f"--target {target}: {_distribution(outside[target])} does not load ({error}); mend or uninstall it"
        ) from error


def _outside() -> dict[str, EntryPoint]:
    """Targets of other distributions; the names of our own are ours."""
    return {found.name: found for found in entry_points(group=GROUP) if found.name not in _MODULES}


def _distribution(found: EntryPoint) -> str:
    return found.dist.name if found.dist is not None else found.value

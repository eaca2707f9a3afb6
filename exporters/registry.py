"""The targets and the interface of their exporters. Other distributions can add targets as entry points of GROUP."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictor import Predictor
from toolkit.utils.errors import InputError

if TYPE_CHECKING:
    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

GROUP = "hbt.exporters"
"""Each entry point of this group is a callable without arguments that returns an Exporter; its name is the target."""
_MODULES = {
    "onnx-int8": "exporters.onnx_int8",
    "onnx-fp32": "exporters.onnx_fp32",
    "onnx-fp16": "exporters.onnx_fp16",
    "onnx-int4": "exporters.onnx_int4",
    "torch-int8": "exporters.torch_int8",
    "openvino-int8": "exporters.openvino_int8",
    "c": "exporters.ngram.c",
    "js": "exporters.ngram.js",
    "python": "exporters.ngram.python",
}
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Evidence:
    """The rows that an exporter may use."""

    calibration: Sequence[str]
    """Training texts for calibrating the ranges of activations."""
    validation: Sequence[str]
    """Texts for selecting a candidate."""
    labels: np.ndarray
    """int (validation,): labels of the validation texts."""
    rule: DecisionRule
    """Decision rule of the classifier."""


@dataclass(frozen=True)
class Candidate:
    """One quantization scheme of a target."""

    name: str
    """Display name, such as `static, smoothed`."""
    write: Callable[[Path, frozenset[str]], dict[str, Any]]
    """Write the artifact into a folder, with the named parts in float; return facts about it for the stage result."""
    parts: tuple[str, ...] = ()
    """Names of the parts that can be kept in float if the candidate loses too much."""
    this_cpu_only: bool = False
    """Whether some processors compute other scores."""
    promise: Literal["faster", "smaller", "same"] | None = None
    """What it must be, compared with the reference, if that is not the promise of its target."""


class LoadedArtifact(Predictor, Protocol):
    """A predictor that also returns logits."""

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Return probabilities, float32 (texts, labels)."""
        ...

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Return logits, float32 (texts, labels)."""
        ...

    def predict(self, texts: Sequence[str], batch_size: int = 1) -> list[tuple[str, float]]:
        """Return the predicted label of each text and its probability."""
        ...


class Exporter(Protocol):
    """One target and its runtime. At import, its module imports only what a package needs."""

    @property
    def name(self) -> str:
        """Name of the target."""
        ...

    @property
    def summary(self) -> str:
        """One-line description for `hbt targets`."""
        ...

    @property
    def promise(self) -> Literal["faster", "smaller", "same"]:
        """What a candidate must be, compared with the reference, to pass the quality gate."""
        ...

    @property
    def reference(self) -> str | None:
        """The target whose artifact is the single-precision reference; None for torch itself."""
        ...

    @property
    def file(self) -> str:
        """File name of the artifact."""
        ...

    @property
    def distributions(self) -> tuple[str, ...]:
        """Distributions that packages need at run time; the first is the runtime. Empty if they need none."""
        ...

    def needs(self, folder: Path) -> tuple[str, ...]:
        """Return the distributions that the package in `folder` needs: `distributions`, or others for its network."""
        ...

    def available(self) -> str | None:
        """Return None if the target can be exported here, else the reason and what to install."""
        ...

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
    ) -> list[Candidate]:
        """Return the candidates to evaluate; the first is used without a search.

        reference: folder with the artifact of the reference target; ignored if that is None.
        Raises: InputError if the target does not support this classifier.
        """
        ...

    def loader(self, folder: Path) -> str:
        """Return the source of how_to_load.py for the package in `folder`, which has its artifact and config.json.

        The source must define `load(folder, threads)`, which returns a LoadedArtifact.
        """
        ...

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtifact:
        """Return the predictor of a package folder."""
        ...


def targets() -> dict[str, str]:
    """Return the names of all targets, each with the distribution that provides it."""
    return dict.fromkeys(_MODULES, "hbt") | {name: _distribution(found) for name, found in _third_party().items()}


def exporter(target: str) -> Exporter:
    """Return the exporter of a target.

    Raises: InputError if the target does not exist or a third-party exporter does not load.
    """
    if target in _MODULES:
        return importlib.import_module(_MODULES[target]).EXPORTER
    others = _third_party()
    if target not in others:
        raise InputError(f"--target {target}: no such target; available: {', '.join(targets())}")
    try:
        return others[target].load()()
    except Exception as error:  # third-party code can raise anything
        raise InputError(
            f"--target {target}: {_distribution(others[target])} does not load ({error}); fix or uninstall it"
        ) from error


def _third_party() -> dict[str, EntryPoint]:
    """Return the targets of other distributions; they cannot replace the built-in ones."""
    return {found.name: found for found in entry_points(group=GROUP) if found.name not in _MODULES}


def _distribution(found: EntryPoint) -> str:
    """Return the name of the distribution that provides an entry point."""
    return found.dist.name if found.dist is not None else found.value

"""The reference: the classifier in single precision that the candidates of a target are measured against."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.registry import NOTHING, Evidence, Exporter, exporter
from toolkit import package
from toolkit.config.settings import ExportSettings
from toolkit.evaluation.predictor import Predictor
from toolkit.modeling.classifier import Classifier
from toolkit.utils.errors import CannotExport


@dataclass(frozen=True, eq=False)
class Reference:
    """The single-precision classifier that candidates are compared with."""

    folder: Path
    """Folder of the artifact; does not exist if the reference is torch itself."""
    model: Predictor
    """Runs on one thread."""
    logits: np.ndarray
    """float32 (validation rows, labels), each text in a batch of its own."""
    size_bytes: int
    facts: dict[str, Any]
    """Facts reported by the exporter."""


@dataclass(frozen=True, eq=False)
class TorchReference:
    """The classifier in torch, with a default batch size of 1."""

    classifier: Classifier

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classifier.labels

    @property
    def threshold(self) -> float | None:
        return self.classifier.threshold

    @property
    def offsets(self) -> tuple[float, ...] | None:
        return self.classifier.offsets

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        return self.classifier.predict_proba(texts, batch_size)

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        return self.classifier.predict_logits(texts, batch_size)


def make_reference(target: Exporter, classifier: Classifier, evidence: Evidence, scratch: Path) -> Reference:
    """Return the reference of a target; its artifact, if it has one, is written below `scratch`.

    Raises: CannotExport if the reference cannot be exported from this classifier or its exporter is not available.
    """
    folder = scratch / "reference"
    if target.reference is None:
        model = TorchReference(classifier.with_rule(evidence.rule))
        return Reference(folder, model, model.predict_logits(evidence.validation), 4 * classifier.parameters, {})
    other = exporter(target.reference)
    reason = other.available()
    if reason is not None:
        raise CannotExport(reason)
    candidate = other.candidates(classifier, evidence, ExportSettings(target=other.name), folder)[0]
    size, facts = package.write_loadable(folder, classifier, evidence.rule, other, candidate, NOTHING)
    loaded = other.load(folder, threads=1)
    return Reference(
        folder, loaded, loaded.predict_logits(evidence.validation), size, facts | {"fp32_size_bytes": size}
    )

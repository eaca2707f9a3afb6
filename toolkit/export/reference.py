"""The classifier in single precision, beside which every form of a target is measured."""

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
    """What a form is compared with."""

    folder: Path
    """Its artifact; nothing is there if the target has no reference."""
    model: Predictor
    """On one thread."""
    logits: np.ndarray
    """float32 (validation rows, labels), each text scored alone."""
    size_bytes: int
    facts: dict[str, Any]
    """What its exporter found."""


@dataclass(frozen=True, eq=False)
class TorchReference:
    """The classifier in torch, each text scored alone unless a batch size is given."""

    classifier: Classifier

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classifier.labels

    @property
    def threshold(self) -> float | None:
        return self.classifier.threshold

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        return self.classifier.predict_proba(texts, batch_size)

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        return self.classifier.predict_logits(texts, batch_size)


def make_reference(target: Exporter, classifier: Classifier, evidence: Evidence, scratch: Path) -> Reference:
    """The reference of a target, written below `scratch` if it is that of another target.

    Raises: CannotExport if that cannot be made of this classifier, or does not run.
    """
    folder = scratch / "single"
    if target.reference is None:
        model = TorchReference(classifier.with_threshold(evidence.threshold))
        return Reference(folder, model, model.predict_logits(evidence.validation), 4 * classifier.parameters, {})
    other = exporter(target.reference)
    reason = other.available()
    if reason is not None:
        raise CannotExport(reason)
    form = other.candidates(classifier, evidence, ExportSettings(target=other.name), folder)[0]
    size, facts = package.write_loadable(folder, classifier, evidence.threshold, other, form, NOTHING)
    loaded = other.load(folder, threads=1)
    return Reference(
        folder, loaded, loaded.predict_logits(evidence.validation), size, facts | {"fp32_size_bytes": size}
    )

"""The linear baseline stage: TF-IDF and a linear classifier, with which every result is compared."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions, evaluate
from toolkit.modeling import linear as linear
from toolkit.stages.result import StageResult
from toolkit.utils.files import whole_folder

NAME = "linear baseline"
"""Its name in tables."""


def train_linear_baseline(corpus: Corpus, out: Path) -> StageResult:
    """Fit the linear baseline on the training rows, choose its threshold on the validation rows and write `out`."""
    started = time.monotonic()
    with whole_folder(out) as partial:
        model = linear.fit_linear(corpus)
        linear.save(model, partial)
        rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
        predictions = Predictions(rows, _logits(model, corpus.take(rows)))
        predictions.save(partial / PREDICTIONS_FILE, corpus)
        validation, test, slices = evaluate(corpus, predictions, model.threshold)
        result = StageResult(
            stage="linear_baseline",
            checkpoint=".",
            metrics=test,
            validation_metrics=validation,
            threshold=model.threshold,
            parameters=int(model.classifier.coef_.size + model.classifier.intercept_.size),
            size_bytes=sum(file.stat().st_size for file in partial.glob("floor.*")),
            seconds=time.monotonic() - started,
            slices=slices,
        )
        result.save(partial)
    return result


@dataclass(frozen=True, eq=False)
class LinearFolds:
    """Linear baselines for out-of-fold logits."""

    folds: tuple[linear.LinearModel, ...]
    """Model k is fitted on all training rows outside fold k."""
    all_rows: linear.LinearModel
    """Fitted on all training rows."""

    def logits(self, texts: Sequence[str], folds: np.ndarray) -> np.ndarray:
        """Return logits, float32 (texts, labels), each from the model fitted without the text's fold.

        folds: int (texts,); -1 for a text of no fold, which gets the logits of the model fitted on all training rows.
        """
        logits = np.empty((len(texts), len(self.all_rows.labels)), dtype=np.float32)
        for place in np.unique(folds):
            chosen = np.flatnonzero(folds == place)
            logits[chosen] = _logits(
                self.all_rows if place < 0 else self.folds[place], [texts[i] for i in chosen.tolist()]
            )
        return logits


def linear_folds(corpus: Corpus) -> LinearFolds:
    """Fit the linear baseline once without each fold and once on all training rows."""
    without = [np.flatnonzero((corpus.fold >= 0) & (corpus.fold != fold)) for fold in range(corpus.folds)]
    return LinearFolds(tuple(linear.fit_linear(corpus, rows) for rows in without), linear.fit_linear(corpus))


def _logits(model: linear.LinearModel, texts: Sequence[str]) -> np.ndarray:
    """Return log-probabilities; their softmax is the probabilities, so they serve as logits."""
    return np.log(np.maximum(model.predict_proba(texts).astype(np.float64), 1e-12)).astype(np.float32)

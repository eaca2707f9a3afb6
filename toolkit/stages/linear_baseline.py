"""The floor stage: the linear classifier that every result is shown beside."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions, evaluate
from toolkit.modeling import linear as floor_model
from toolkit.stages.result import StageResult
from toolkit.utils.files import whole_folder


def train_floor(corpus: Corpus, out: Path) -> StageResult:
    """Fit the floor on the training rows; its threshold comes from the validation rows."""
    started = time.monotonic()
    with whole_folder(out) as partial:
        floor = floor_model.fit_floor(corpus)
        floor_model.save(floor, partial)
        rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
        predictions = Predictions(rows, _logits(floor, corpus.take(rows)))
        predictions.save(partial / PREDICTIONS_FILE, corpus)
        validation, test, slices = evaluate(corpus, predictions, floor.threshold)
        result = StageResult(
            stage="floor",
            checkpoint=".",
            metrics=test,
            validation_metrics=validation,
            threshold=floor.threshold,
            parameters=int(floor.classifier.coef_.size + floor.classifier.intercept_.size),
            size_bytes=sum(file.stat().st_size for file in partial.glob("floor.*")),
            seconds=time.monotonic() - started,
            slices=slices,
        )
        result.save(partial)
    return result


@dataclass(frozen=True, eq=False)
class FloorFolds:
    """The floor fitted without each fold, in order, and on all training rows."""

    folds: tuple[floor_model.Floor, ...]
    whole: floor_model.Floor

    def logits(self, texts: Sequence[str], folds: np.ndarray) -> np.ndarray:
        """float32 (texts, labels): of the floor that did not see the text's fold (int (texts,)), or of the whole."""
        logits = np.empty((len(texts), len(self.whole.labels)), dtype=np.float32)
        for place in np.unique(folds):
            chosen = np.flatnonzero(folds == place)
            logits[chosen] = _logits(
                self.whole if place < 0 else self.folds[place], [texts[i] for i in chosen.tolist()]
            )
        return logits


def floor_folds(corpus: Corpus) -> FloorFolds:
    """Fit the floor once for each fold and once on all training rows."""
    without = [np.flatnonzero((corpus.fold >= 0) & (corpus.fold != fold)) for fold in range(corpus.folds)]
    return FloorFolds(tuple(floor_model.fit_floor(corpus, rows) for rows in without), floor_model.fit_floor(corpus))


def _logits(floor: floor_model.Floor, texts: Sequence[str]) -> np.ndarray:
    """Probabilities as logits, as every stage keeps them: softmax(log p) is p."""
    return np.log(np.maximum(floor.predict_proba(texts).astype(np.float64), 1e-12)).astype(np.float32)

"""The floor stage: the linear classifier that every result is shown beside."""

import time
from pathlib import Path

import numpy as np

from benchmarks import floor as floor_model
from toolkit.corpus import Corpus
from toolkit.stage import PREDICTIONS_FILE, Predictions, StageResult, evaluate, whole_folder


def train_floor(corpus: Corpus, out: Path) -> StageResult:
    """Fit the floor on the training rows; its threshold comes from the validation rows."""
    started = time.monotonic()
    with whole_folder(out) as partial:
        floor = floor_model.fit_floor(corpus)
        floor_model.save(floor, partial)
        rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
        # Probabilities are kept as logits, as every stage keeps them: softmax(log p) is p.
        probabilities = floor.predict_proba(corpus.take(rows)).astype(np.float64)
        predictions = Predictions(rows, np.log(np.maximum(probabilities, 1e-12)).astype(np.float32))
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

"""What every stage that trained one network leaves behind: its predictions, its threshold, its weights."""

import time
from pathlib import Path

import numpy as np

from toolkit.baseline import predict_rows
from toolkit.classifier import WEIGHTS_FILE, Classifier, save_classifier
from toolkit.corpus import Corpus
from toolkit.stage import PREDICTIONS_FILE, Predictions, StageResult, evaluate


def keep_trained(
    stage: str, what: str, classifier: Classifier, corpus: Corpus, folder: Path, started: float
) -> tuple[StageResult, Predictions]:
    """Predict validation and test rows, choose the threshold on validation rows, and write both and the weights.

    what: what the classifier is called while it predicts. started: seconds of the monotonic clock.
    Returns: the result, without details and not yet saved, and the predictions.
    """
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    predictions = predict_rows(classifier, corpus, rows, f"{what}: predicting")
    predictions.save(folder / PREDICTIONS_FILE, corpus)
    validation_metrics, test_metrics, slices = evaluate(corpus, predictions)
    threshold = validation_metrics.get("best_threshold")
    save_classifier(classifier.with_threshold(threshold), folder)
    result = StageResult(
        stage=stage,
        checkpoint=".",
        metrics=test_metrics,
        validation_metrics=validation_metrics,
        threshold=threshold,
        parameters=classifier.parameters,
        size_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        seconds=time.monotonic() - started,
        slices=slices,
    )
    return result, predictions

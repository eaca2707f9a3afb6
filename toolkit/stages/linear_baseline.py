"""The linear baseline stage: a tuned linear classifier over n-grams, with which every result is compared."""

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions, evaluate
from toolkit.modeling import linear
from toolkit.stages.result import StageResult
from toolkit.training.linear_fit import LinearSettings, fit_linear
from toolkit.utils.files import whole_folder

NAME = "linear baseline"
"""Its name in tables."""


def train_linear_baseline(corpus: Corpus, out: Path) -> StageResult:
    """Fit the linear baseline on the training rows, with its decision rule, and write the stage `out`."""
    started = time.monotonic()
    with whole_folder(out) as partial:
        found = fit_linear(corpus)
        linear.save(found.model, partial)
        rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
        predictions = Predictions(rows, found.model.predict_logits(corpus.take(rows)))
        predictions.save(partial / PREDICTIONS_FILE, corpus)
        validation, test, slices = evaluate(corpus, predictions, found.choice.rule)
        result = StageResult(
            stage="linear_baseline",
            checkpoint=".",
            metrics=test,
            validation_metrics=validation,
            rule=found.choice.rule,
            parameters=found.model.parameters,
            size_bytes=sum(file.stat().st_size for file in partial.glob("floor.*")),
            seconds=time.monotonic() - started,
            slices=slices,
            details={
                "decision_rule": found.choice.as_dict(),
                "settings": asdict(found.settings),
                "trials": [trial.as_dict() for trial in found.trials],
            },
        )
        result.save(partial)
    return result


def known_settings(result: StageResult) -> LinearSettings | None:
    """Return the settings that a finished linear baseline has found; None for one that is older than the search."""
    found = result.details.get("settings")
    return None if found is None else LinearSettings(**found)

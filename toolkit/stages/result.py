"""The output of a stage: a result file and the predictions it was computed from."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule, rule_from
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions, evaluate, rule_on
from toolkit.modeling.classifier import WEIGHTS_FILE, Classifier, save_classifier
from toolkit.utils import console
from toolkit.utils.files import without_nan, write_text

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class StageResult:
    """Checkpoint, metrics and size of a finished stage; saved as JSON."""

    stage: str
    checkpoint: str
    """Folder of the checkpoint, or file of the artifact, relative to the stage's folder."""
    metrics: dict[str, float]
    """Metrics on the test rows, at `rule`."""
    validation_metrics: dict[str, float]
    """Metrics on the validation rows, at `rule`."""
    rule: DecisionRule
    parameters: int
    size_bytes: int
    seconds: float
    predictions: str = PREDICTIONS_FILE
    """File of the predictions, relative to the stage's folder."""
    slices: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics on each slice of the test rows."""
    details: dict[str, Any] = field(default_factory=dict)
    """Results specific to the kind of stage."""

    def save(self, folder: Path) -> None:
        text = json.dumps(without_nan(asdict(self)), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / RESULT_FILE, text + "\n")

    @staticmethod
    def load(folder: Path) -> "StageResult":
        entries = json.loads((folder / RESULT_FILE).read_text("utf-8"))
        rule = entries.pop("rule", None) or {
            "threshold": entries.pop("threshold", None)
        }  # older runs: a threshold only
        return StageResult(rule=rule_from(rule), **entries)


def predict_rows(classifier: Classifier, corpus: Corpus, rows: np.ndarray, what: str) -> Predictions:
    """Return the logits of `classifier` on rows of the corpus. what: label of the progress bar."""
    with console.bar(what, len(rows)) as advance:
        return Predictions(rows, classifier.predict_logits(corpus.take(rows), advance=advance))


def keep_trained(
    stage: str,
    what: str,
    classifier: Classifier,
    corpus: Corpus,
    folder: Path,
    started: float,
    inherited: DecisionRule | None = None,
    out_of_fold: Predictions | None = None,
) -> tuple[StageResult, Predictions]:
    """Evaluate a trained classifier on validation and test rows and write its predictions and checkpoint.

    The decision rule is chosen on the validation rows, and on the training rows if there are out-of-fold predictions.
    what: name of the classifier in the progress bar. started: start of the stage, `time.monotonic()` in seconds.
    inherited: the rule of the teacher, or of the classifier before pruning; see `choose_rule`.
    out_of_fold: predictions on training rows, each from a classifier that was not trained on the row.
    Returns: the result, not yet saved, and the predictions.
    """
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    predictions = predict_rows(classifier, corpus, rows, f"{what}: predicting")
    predictions.save(folder / PREDICTIONS_FILE, corpus)
    held_out = predictions.joined(out_of_fold)
    chosen_on = np.setdiff1d(held_out.rows, corpus.rows("test"))
    choice = rule_on(corpus, held_out, chosen_on, inherited)
    validation_metrics, test_metrics, slices = evaluate(corpus, predictions, choice.rule)
    save_classifier(classifier.with_rule(choice.rule), folder)
    result = StageResult(
        stage=stage,
        checkpoint=".",
        metrics=test_metrics,
        validation_metrics=validation_metrics,
        rule=choice.rule,
        parameters=classifier.parameters,
        size_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        seconds=time.monotonic() - started,
        slices=slices,
        details={"decision_rule": choice.as_dict()},
    )
    return result, predictions

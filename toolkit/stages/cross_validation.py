"""The baseline stage: one classifier per fold, and their ensemble, the default teacher of the distillation stage.

The logits of a training row come from the classifier that was not trained on it (out of fold). Validation and test
rows, on which no classifier was trained, get the mean over all folds.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from toolkit.config.settings import ModelSettings, TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule, rule_from
from toolkit.evaluation.metrics import cross_entropy, metrics_with_rule, softmax
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions, evaluate, rule_on
from toolkit.modeling.classifier import WEIGHTS_FILE, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.stages.result import StageResult, predict_rows
from toolkit.training.dataset import Examples
from toolkit.training.learning_rate import RATE_FILE, RateSearch, find_learning_rate, with_learning_rate
from toolkit.training.processes import spread
from toolkit.training.stopping import MACRO_F1, ToBeat
from toolkit.training.trainer import Loop, fit, steps_of
from toolkit.utils import console
from toolkit.utils.files import read_json, whole_folder
from toolkit.utils.scratch import remove_folder

FOLD_FILE = "fold.json"


WatchFold = Callable[[int, int, dict[str, float]], None]
"""Called with the fold (from 0), the epoch (from 1) and the metrics of that epoch."""


@dataclass(frozen=True)
class FoldResult:
    """Metrics of one fold: `val` on the rows held out from it, `train` on the rows it was trained on."""

    fold: int
    best_epoch: int
    rule: DecisionRule
    val: dict[str, float]
    train: dict[str, float]
    total_parameters: int
    trainable_parameters: int
    seconds: float
    history: list[dict[str, float]]

    @staticmethod
    def load(folder: Path) -> "FoldResult | None":
        """Return the result in the folder of a fold; None if the fold is not finished or its result is damaged."""
        with suppress(TypeError, KeyError):
            entries = read_json(folder / FOLD_FILE)
            return FoldResult(**entries | {"rule": rule_from(entries["rule"])})
        return None


def train_baseline(
    corpus: Corpus,
    model: ModelSettings,
    training: TrainingSettings,
    out: Path,
    watch: WatchFold | None = None,
    to_beat: ToBeat | None = None,
) -> StageResult:
    """Fine-tune one classifier per fold, combine their predictions and write the stage `out`.

    to_beat: figures of the linear baseline; a fold that has no prospect of reaching them stops early.

    After an interruption, finished folds are kept and an unfinished fold resumes from its last epoch.
    Raises: InputError if the encoder cannot be loaded.
    """
    with whole_folder(out) as partial:
        training, search = with_learning_rate(
            training, partial / RATE_FILE, lambda: _find_rate(corpus, model, training)
        )
        _train_folds(corpus, model, training, partial, watch, to_beat)
        folds = fold_results(partial, corpus.folds)
        predictions = combine_folds(corpus, [fold_predictions(partial, k) for k in range(corpus.folds)])
        predictions.save(partial / PREDICTIONS_FILE, corpus)
        # Out-of-fold rows are held out as well, and there are many of them, so the rule is less noisy.
        held_out = np.concatenate([corpus.rows("train"), corpus.rows("validation")])
        choice = rule_on(corpus, predictions, held_out)
        validation, test, slices = evaluate(corpus, predictions, choice.rule)
        best = max(folds, key=lambda fold: fold.val["macro_f1"])
        single = evaluate(corpus, fold_predictions(partial, best.fold), best.rule)
        result = StageResult(
            stage="baseline",
            checkpoint=f"fold-{best.fold + 1}",
            metrics=test,
            validation_metrics=validation,
            rule=choice.rule,
            parameters=sum(fold.total_parameters for fold in folds),
            size_bytes=sum((partial / f"fold-{k + 1}" / WEIGHTS_FILE).stat().st_size for k in range(corpus.folds)),
            seconds=sum(fold.seconds for fold in folds),
            slices=slices,
            details=search
            | {
                "learning_rate": training.learning_rate,
                "best_fold": best.fold,
                "decision_rule": choice.as_dict(),
                "best_fold_rule": best.rule.as_dict(),
                "best_fold_metrics": single[1],
                "best_fold_slices": single[2],
                "best_fold_size_bytes": (partial / f"fold-{best.fold + 1}" / WEIGHTS_FILE).stat().st_size,
                "best_fold_parameters": best.total_parameters,
                "out_of_fold_metrics": _metrics_and_loss(corpus, predictions, corpus.rows("train"), choice.rule),
            },
        )
        result.save(partial)
    return result


def fold_results(stage: Path, count: int) -> list[FoldResult]:
    """Return the results of all folds of a stage."""
    found = [FoldResult.load(stage / f"fold-{fold + 1}") for fold in range(count)]
    return [fold for fold in found if fold is not None]


def fold_predictions(stage: Path, fold: int) -> Predictions:
    """Load the logits of one fold's classifier on all rows."""
    return Predictions.load(stage / f"fold-{fold + 1}" / PREDICTIONS_FILE)


def combine_folds(corpus: Corpus, folds: list[Predictions]) -> Predictions:
    """Return out-of-fold logits for training rows and the mean over all folds for validation and test rows."""
    rows = corpus.rows("all")
    stacked = np.stack([predictions.of(rows) for predictions in folds])  # (folds, rows, labels)
    logits = stacked.mean(axis=0)
    for fold in range(len(folds)):
        held_out = corpus.fold[rows] == fold
        logits[held_out] = stacked[fold, held_out]
    return Predictions(rows, logits.astype(np.float32))


def _find_rate(corpus: Corpus, model: ModelSettings, training: TrainingSettings) -> RateSearch:
    """Find the learning rate with which the first fold's classifier has the lowest loss after a short training."""
    train, held_out = np.flatnonzero(corpus.fold > 0), np.flatnonzero(corpus.fold == 0)
    texts, seed = corpus.take(corpus.rows("train")), corpus.settings.seed
    return find_learning_rate(
        lambda: (build_classifier(model, corpus.label_names, texts, seed), None),
        Examples(corpus.take(train), corpus.labels[train]),
        Examples(corpus.take(held_out), corpus.labels[held_out]),
        training,
        seed,
    )


def _train_folds(
    corpus: Corpus,
    model: ModelSettings,
    training: TrainingSettings,
    stage: Path,
    watch: WatchFold | None,
    to_beat: ToBeat | None,
) -> None:
    """Train the folds that are not finished, one after the other or spread over a cluster."""
    places = {fold: stage.resolve() / f"fold-{fold + 1}" for fold in range(corpus.folds)}
    left = {fold: place for fold, place in places.items() if FoldResult.load(place) is None}
    if not spread.is_spread() or len(left) < 2:
        for fold, place in left.items():
            _train_fold(corpus, fold, model, training, place, watch, to_beat)
        return
    jobs = [(corpus, fold, model, training, place, None, to_beat) for fold, place in left.items()]
    for fold, _ in zip(left, spread.each_of("folds", _train_fold, jobs), strict=True):
        result = FoldResult.load(places[fold])
        if watch is not None and result is not None:
            for epoch, metrics in enumerate(result.history, 1):
                watch(fold, epoch, metrics)


def _train_fold(
    corpus: Corpus,
    fold: int,
    model: ModelSettings,
    training: TrainingSettings,
    out: Path,
    watch: WatchFold | None,
    to_beat: ToBeat | None,
) -> None:
    started = time.monotonic()
    validation = np.flatnonzero(corpus.fold == fold)
    train = np.flatnonzero((corpus.fold >= 0) & (corpus.fold != fold))
    seed = corpus.settings.seed
    # A tokenizer trained for a shape: model uses all training rows, so that folds differ only in their weights.
    classifier = build_classifier(model, corpus.label_names, corpus.take(corpus.rows("train")), seed)
    with whole_folder(out) as partial:
        with console.bar(f"fold {fold + 1} of {corpus.folds}", steps_of(len(train), training)) as advance:
            found = fit(
                classifier,
                Examples(corpus.take(train), corpus.labels[train]),
                Examples(corpus.take(validation), corpus.labels[validation]),
                training,
                seed,
                partial / "training",
                loop=Loop(
                    watch=lambda epoch, metrics: watch(fold, epoch, metrics) if watch else None,
                    advance=advance,
                    to_beat=to_beat,
                ),
            )
        if to_beat is not None and to_beat.is_out_of_reach(found.history, training.epochs):
            best = max(epoch[MACRO_F1] for epoch in found.history)
            console.say(
                f"fold {fold + 1}: macro-F1 {best:.4f} at best in {len(found.history)} of {training.epochs} epochs; "
                f"the linear baseline has {to_beat.macro_f1:.4f}; try --learning-rate auto, or another --model"
            )
        rows = corpus.rows("all")
        predictions = predict_rows(classifier, corpus, rows, f"fold {fold + 1} of {corpus.folds}: predicting")
        predictions.save(partial / PREDICTIONS_FILE, corpus)
        held_out = np.concatenate([validation, corpus.rows("validation")])
        rule = rule_on(corpus, predictions, held_out).rule
        save_classifier(classifier.with_rule(rule), partial)
        result = FoldResult(
            fold=fold,
            best_epoch=found.best_epoch,
            rule=rule,
            val=_metrics_and_loss(corpus, predictions, validation, rule),
            train=_metrics_and_loss(corpus, predictions, train, rule),
            total_parameters=classifier.parameters,
            trainable_parameters=classifier.trainable_parameters,
            seconds=time.monotonic() - started,
            history=found.history,
        )
        (partial / FOLD_FILE).write_text(json.dumps(asdict(result), indent=2) + "\n", "utf-8")
        remove_folder(partial / "training")


def _metrics_and_loss(
    corpus: Corpus, predictions: Predictions, rows: np.ndarray, rule: DecisionRule
) -> dict[str, float]:
    labels, probabilities = corpus.labels[rows], softmax(predictions.of(rows).astype(np.float64))
    metrics = metrics_with_rule(labels, probabilities, rule, corpus.label_names)
    return metrics | {"loss": cross_entropy(labels, probabilities)}

"""Fit the n-gram student (`toolkit.modeling.ngram`): several linear models of one table, and the best mixture of them.

All candidates are linear in the same hashed features, so a weighted sum of them is one table again and costs nothing at
inference. Those that learn from the labels alone (NBSVM, Wang and Manning 2012) are compared out of fold. What others
learn from the teacher, from unlabeled texts, or by regression of logits is added only where it is better on validation
rows. Out-of-fold rows cannot judge it: the teacher of one fold has learned the labels of the others, and a student of
its logits learns some of them (`python -m benchmarks.studies.linear_models.teacher` measures it).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from toolkit.evaluation.predictions import Predictions
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.linear import as_logits
from toolkit.modeling.ngram import PAD_ID, rows_of
from toolkit.training.dataset import Examples
from toolkit.training.nbsvm import (
    Fit,
    Outputs,
    Score,
    best_score,
    calibrating_scale,
    is_behind,
    out_of_fold,
)
from toolkit.training.ngram.candidates import (
    NgramCandidate,
    TrainingTexts,
    fit_candidate,
    linear_svms,
    teacher_candidates,
    texts_of,
)
from toolkit.training.ngram.mixture import best_addition, best_share
from toolkit.training.ngram.regression import network_of


@dataclass(frozen=True, eq=False)
class NgramFit:
    """The fitted student and how it was chosen."""

    student: Classifier
    logits: np.ndarray | None
    """float32 (labeled texts, labels): out-of-fold logits; None if it has learned from a teacher."""
    details: dict[str, Any]

    def out_of_fold(self, rows: np.ndarray) -> Predictions | None:
        """Return the out-of-fold predictions; rows: int (labeled texts,), their rows of the corpus."""
        return None if self.logits is None else Predictions(rows, self.logits)


@dataclass(frozen=True, eq=False)
class Judged:
    """A candidate on texts that it was not fitted on."""

    logits: np.ndarray
    """float64 (texts, labels), calibrated: out of fold, or of the validation texts if it learned from a teacher."""
    scale: float
    """The factor that calibrates the logits."""
    score: Score


START = NgramCandidate("labels", 4.0)
"""The first candidate, which chooses the features."""
Tried = dict[NgramCandidate, Judged]
Mixture = dict[NgramCandidate, float]
"""Linear models and their shares."""


def fit_ngram(
    student: str,
    train: Examples,
    validation: Examples,
    labels: tuple[str, ...],
    alpha: float,
    folds: np.ndarray,
    watch: Callable[[int, dict[str, float]], None] | None = None,
) -> NgramFit:
    """Fit the student `ngram[:BITS]` on labels and, if `train` has them, on the logits of a teacher.

    validation: labeled texts that neither the student nor its teacher has learned from.
    alpha: weight of the teacher logits against the labels in the regression of logits.
    folds: int (texts,), the fold of each text, -1 for none.
    watch: as in `toolkit.training.trainer.Loop`, where each candidate counts as an epoch.
    Raises: InputError if the name is invalid.
    """
    texts, start, features = _with_words_or_without(train, validation, rows_of(student), len(labels), alpha, folds)
    rows = _labeled_rows(texts)
    history: list[dict[str, float]] = []
    tried: Tried = {}

    def keep(candidate: NgramCandidate, judged: Judged) -> None:
        tried[candidate] = judged
        score = judged.score
        history.append({"epoch": len(history) + 1, "val_loss": score.log_loss, "val_macro_f1": score.macro_f1})
        if watch is not None:
            watch(len(history), history[-1])

    def best_of(*candidates: NgramCandidate) -> NgramCandidate:
        """Return the best candidate out of fold; one that is behind the first may be left out."""
        first, *_ = candidates
        for candidate in candidates:
            fits = _fits(texts, candidate)
            if candidate in tried or (first in tried and is_behind(*rows, fits, tried[first].logits)):
                continue
            found = out_of_fold(*rows, fits)
            keep(candidate, Judged(found.logits, found.scale, found.score))
        left = [candidate for candidate in candidates if candidate in tried]
        return left[best_score([tried[candidate].score for candidate in left])]

    keep(START, start)
    of_labels = best_of(START, *(replace(START, C=C) for C in (1.0, 8.0)))
    of_labels = best_of(of_labels, replace(of_labels, balanced=True))
    of_labels = best_of(of_labels, best_of(*linear_svms(log_ratio=True)))
    plain = best_of(*linear_svms(log_ratio=False))
    share = best_share(train.labels[texts.labeled], tried[of_labels].logits, tried[plain].logits)
    parts = _mixture({of_labels: 1.0}, plain, share)
    if train.teacher_logits is not None:
        of_teacher = teacher_candidates(texts)
        for candidate in of_teacher:
            keep(candidate, judge_on_validation(texts, candidate))
        first = _outputs_on_validation(texts, _table(texts, parts, tried))
        found = best_addition(validation.labels, first, [tried[each].logits for each in of_teacher])
        if found is not None:
            parts = _mixture(parts, of_teacher[found.index], found.share)
    names = [candidate.name for candidate in tried]
    details = {
        "features": features,
        "best_epoch": 1 + list(tried).index(next(iter(parts))),
        "history": history,
        "candidates": [asdict(c) | {"name": n} for c, n in zip(tried, names, strict=True)],
    }
    return _finished(texts, parts, tried, labels, details)


def _with_words_or_without(
    train: Examples, validation: Examples, rows: int, count: int, alpha: float, folds: np.ndarray
) -> tuple[TrainingTexts, Judged, list[dict[str, Any]]]:
    """Return the features of the texts that are better out of fold, with START's logits on them, and both scores."""
    found: list[tuple[TrainingTexts, Judged]] = []
    for words in (False, True):
        # A table with words has as many rows more, since both kinds would collide in fewer.
        texts = texts_of(train, validation, rows * (2 if words else 1), count, alpha, folds, words)
        if found and is_behind(*_labeled_rows(texts), _fits(texts, START), found[0][1].logits):
            break
        found.append((texts, judge_out_of_fold(texts, START)))
    chosen = best_score([judged.score for _, judged in found])
    features = [{"words": bool(texts.rows.word_rows)} | asdict(judged.score) for texts, judged in found]
    return *found[chosen], features


def refit_ngram(
    rows: int,
    train: Examples,
    validation: Examples,
    labels: tuple[str, ...],
    alpha: float,
    folds: np.ndarray,
    mixture: Mixture,
    words: bool,
) -> NgramFit:
    """Fit the mixture that `fit_ngram` has chosen again, with another number of table rows and without a search.

    mixture: see `mixture_in`. words: whether the table has rows for words. The other arguments are as in `fit_ngram`.
    """
    texts = texts_of(train, validation, rows, len(labels), alpha, folds, words)
    tried = {
        each: (judge_out_of_fold if each.targets == "labels" else judge_on_validation)(texts, each) for each in mixture
    }
    return _finished(texts, mixture, tried, labels, {})


def mixture_in(details: dict[str, Any]) -> Mixture:
    """Return the chosen candidates and their shares from the details of a fit."""
    fields = {each["name"]: {k: v for k, v in each.items() if k != "name"} for each in details["candidates"]}
    return {NgramCandidate(**fields[name]): share for name, share in details["mixture"].items()}


def _finished(
    texts: TrainingTexts,
    parts: Mixture,
    tried: Tried,
    labels: tuple[str, ...],
    details: dict[str, Any],
) -> NgramFit:
    """Fit the chosen mixture on all texts, with calibrated logits."""
    weights, intercept = _table(texts, parts, tried)
    if all(part.targets == "labels" for part in parts):
        logits = np.sum([share * tried[part].logits for part, share in parts.items()], axis=0)
        scale = calibrating_scale(texts.train.labels[texts.labeled], logits)
        out_of_fold_logits = (scale * logits).astype(np.float32)
    else:
        scale = calibrating_scale(texts.validation.labels, _outputs_on_validation(texts, (weights, intercept)))
        out_of_fold_logits = None
    everything = np.zeros((len(weights), len(texts.rows.squared_idf)))
    everything[:, texts.used] = scale * weights
    network = network_of(texts.rows, everything, scale * intercept)
    details |= {"mixture": {candidate.name: share for candidate, share in parts.items()}}
    details |= {"table_rows_used": len(texts.used), "words": texts.rows.word_rows > 0}
    return NgramFit(Classifier(network, texts.tokenizer, PAD_ID, labels), out_of_fold_logits, details)


def _mixture(parts: Mixture, other: NgramCandidate, share: float) -> Mixture:
    """Return the mixture of the parts and a share of another candidate."""
    shares = {part: (1 - share) * own for part, own in parts.items()} | {other: share}
    return {part: own for part, own in shares.items() if own > 0}


def judge_out_of_fold(texts: TrainingTexts, candidate: NgramCandidate) -> Judged:
    """Judge a candidate on the labeled texts, each scored by the model that was fitted without its fold."""
    found = out_of_fold(*_labeled_rows(texts), _fits(texts, candidate))
    return Judged(found.logits, found.scale, found.score)


def _labeled_rows(texts: TrainingTexts) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return features, labels and folds of the labeled texts."""
    labeled = texts.labeled
    matrix = texts.matrix if len(labeled) == texts.matrix.shape[0] else texts.matrix[labeled]
    return matrix, texts.train.labels[labeled], texts.folds[labeled]


def _fits(texts: TrainingTexts, candidate: NgramCandidate) -> Fit:
    """Return what fits a candidate without a fold, each fold once."""
    return cache(lambda fold: fit_candidate(texts, candidate, np.flatnonzero(texts.folds != fold)))


def judge_on_validation(texts: TrainingTexts, candidate: NgramCandidate) -> Judged:
    """Judge a candidate, fitted on all texts, on the validation texts."""
    logits = _outputs_on_validation(texts, fit_candidate(texts, candidate, np.arange(len(texts.train.texts))))
    scale = calibrating_scale(texts.validation.labels, logits)
    return Judged(scale * logits, scale, Score.of(texts.validation.labels, scale * logits))


def _outputs_on_validation(texts: TrainingTexts, outputs: Outputs) -> np.ndarray:
    """Return the logits of the validation texts, float64 (texts, labels)."""
    weights, intercepts = outputs
    return as_logits(texts.held_out @ weights.T + intercepts)


def _table(texts: TrainingTexts, parts: Mixture, tried: Tried) -> Outputs:
    """Fit the parts on all texts; return the weights (outputs, columns) and intercepts (outputs,) of their mixture."""
    everything = np.arange(len(texts.train.texts))
    fitted = [(share * tried[part].scale, fit_candidate(texts, part, everything)) for part, share in parts.items()]
    weights = np.sum([factor * own for factor, (own, _) in fitted], axis=0)
    return weights, np.sum([factor * own for factor, (_, own) in fitted], axis=0)

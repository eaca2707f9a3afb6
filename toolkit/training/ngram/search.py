"""Fit the n-gram student (`toolkit.modeling.ngram`): several linear models of one table, and the best mixture of them.

All candidates are linear in the same hashed features, so a weighted sum of them is one table again and costs nothing at
inference. Those that learn from the labels alone (NBSVM, Wang and Manning 2012) are compared out of fold. What others
learn from the teacher, from unlabeled texts, or by regression of logits is added only where it is better on validation
rows. Out-of-fold rows cannot judge it: the teacher of one fold has learned the labels of the others, and a student of
its logits learns some of them. On tweeteval_emotion that lowered the cross-entropy from 0.77 to 0.68, for nothing.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.linear import as_logits
from toolkit.modeling.ngram import PAD_ID, character_tokenizer, rows_of
from toolkit.training.dataset import Examples
from toolkit.training.losses import UNLABELED
from toolkit.training.nbsvm import (
    Loss,
    Outputs,
    Score,
    best_score,
    calibrating_scale,
    fit_outputs,
    out_of_fold,
    targets_of,
)
from toolkit.training.ngram.mixture import best_addition, best_share
from toolkit.training.ngram.regression import (
    RIDGES,
    features_of,
    network_of,
    only_columns,
    ratio_scales,
    regress,
    tfidf,
    wanted_outputs,
)

HINGE_C = 0.3
"""Inverse penalty of the linear SVM, whose loss is larger than that of logistic regression."""


@dataclass(frozen=True)
class NgramCandidate:
    """One linear model of the table."""

    targets: Literal["labels", "teacher", "teacher logits"]
    """Logistic regression on the labels or on the teacher's probabilities, or ridge regression of its logits."""
    C: float
    """Inverse weight of the L2 penalty; 1 / C is the ridge penalty."""
    unlabeled: bool = False
    """Also use the texts without labels."""
    balanced: bool = False
    """Weight rows so that all labels count the same."""
    loss: Loss = "logistic"
    log_ratio: bool = True
    """Scale each feature by its naive Bayes log-ratio."""

    @property
    def name(self) -> str:
        """Describe the candidate in tables and messages."""
        extras = {
            ", unlabeled texts": self.unlabeled,
            ", balanced": self.balanced,
            ", hinge": self.loss == "hinge",
            ", no log-ratios": not self.log_ratio,
        }
        return f"{self.targets}{''.join(each for each, there in extras.items() if there)}, C={self.C:.3g}"


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
class TrainingTexts:
    """Training texts as features and targets."""

    train: Examples
    tokenizer: Tokenizer
    squared_idf: np.ndarray
    """float64 (rows of the table,)."""
    used: np.ndarray
    """int (columns,): rows of the table that occur in the texts; `matrix` has only these columns."""
    matrix: Any
    """CSR float32 (texts, columns)."""
    folds: np.ndarray
    """int (texts,): the fold that a text belongs to or was derived from; -1 for none."""
    alpha: float
    count: int
    """Number of labels."""
    validation: Examples
    held_out: Any
    """CSR float32 (validation texts, columns)."""

    @property
    def labeled(self) -> np.ndarray:
        return np.flatnonzero(self.train.labels != UNLABELED)


@dataclass(frozen=True, eq=False)
class Judged:
    """A candidate on texts that it was not fitted on."""

    logits: np.ndarray
    """float64 (texts, labels), calibrated: out of fold, or of the validation texts if it learned from a teacher."""
    scale: float
    """The factor that calibrates the logits."""
    score: Score


Tried = dict[NgramCandidate, Judged]
Mixture = dict[NgramCandidate, float]
"""Linear models and their shares."""
Judge = Callable[[TrainingTexts, NgramCandidate], Judged]


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
    texts = texts_of(train, validation, rows_of(student), len(labels), alpha, folds)
    history: list[dict[str, float]] = []
    tried: Tried = {}

    def evaluate(candidates: list[NgramCandidate], judge: Judge) -> None:
        for candidate in candidates:
            tried[candidate] = judge(texts, candidate)
            score = tried[candidate].score
            history.append({"epoch": len(history) + 1, "val_loss": score.log_loss, "val_macro_f1": score.macro_f1})
            if watch is not None:
                watch(len(history), history[-1])

    def best_of(*candidates: NgramCandidate) -> NgramCandidate:
        """Return the best candidate out of fold."""
        evaluate([candidate for candidate in candidates if candidate not in tried], judge_out_of_fold)
        return candidates[best_score([tried[candidate].score for candidate in candidates])]

    of_labels = best_of(*(NgramCandidate("labels", C) for C in (1.0, 4.0, 8.0)))
    of_labels = best_of(of_labels, replace(of_labels, balanced=True))
    of_labels = best_of(of_labels, best_of(*_linear_svms(log_ratio=True)))
    plain = best_of(*_linear_svms(log_ratio=False))
    share = best_share(train.labels[texts.labeled], tried[of_labels].logits, tried[plain].logits)
    parts = _mixture({of_labels: 1.0}, plain, share)
    if train.teacher_logits is not None:
        of_teacher = teacher_candidates(texts)
        evaluate(of_teacher, judge_on_validation)
        first = _outputs_on_validation(texts, _table(texts, parts, tried))
        found = best_addition(validation.labels, first, [tried[each].logits for each in of_teacher])
        if found is not None:
            parts = _mixture(parts, of_teacher[found.index], found.share)
    names = [candidate.name for candidate in tried]
    details = {
        "best_epoch": 1 + list(tried).index(next(iter(parts))),
        "history": history,
        "candidates": [asdict(c) | {"name": n} for c, n in zip(tried, names, strict=True)],
    }
    return _finished(texts, parts, tried, labels, details)


def refit_ngram(
    rows: int,
    train: Examples,
    validation: Examples,
    labels: tuple[str, ...],
    alpha: float,
    folds: np.ndarray,
    mixture: Mixture,
) -> NgramFit:
    """Fit the mixture that `fit_ngram` has chosen again, with another number of table rows and without a search.

    mixture: see `mixture_in`. The other arguments are as in `fit_ngram`.
    """
    texts = texts_of(train, validation, rows, len(labels), alpha, folds)
    tried = {
        each: (judge_out_of_fold if each.targets == "labels" else judge_on_validation)(texts, each) for each in mixture
    }
    return _finished(texts, mixture, tried, labels, {})


def mixture_in(details: dict[str, Any]) -> Mixture:
    """Return the chosen candidates and their shares from the details of a fit."""
    fields = {each["name"]: {k: v for k, v in each.items() if k != "name"} for each in details["candidates"]}
    return {NgramCandidate(**fields[name]): share for name, share in details["mixture"].items()}


def texts_of(
    train: Examples, validation: Examples, rows: int, count: int, alpha: float, folds: np.ndarray
) -> TrainingTexts:
    tokenizer = character_tokenizer(train.texts)
    features = tfidf(tokenizer, train.texts, rows)
    used = np.flatnonzero(features.squared_idf)
    matrix = only_columns(features.matrix, used)
    held_out = only_columns(features_of(tokenizer, validation.texts, features.squared_idf), used)
    return TrainingTexts(
        train, tokenizer, features.squared_idf, used, matrix, folds, alpha, count, validation, held_out
    )


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
    everything = np.zeros((len(weights), len(texts.squared_idf)))
    everything[:, texts.used] = scale * weights
    network = network_of(texts.squared_idf, everything, scale * intercept)
    details |= {"mixture": {candidate.name: share for candidate, share in parts.items()}}
    details |= {"table_rows_used": len(texts.used)}
    return NgramFit(Classifier(network, texts.tokenizer, PAD_ID, labels), out_of_fold_logits, details)


def _linear_svms(log_ratio: bool) -> list[NgramCandidate]:
    return [
        NgramCandidate("labels", HINGE_C, balanced=balanced, loss="hinge", log_ratio=log_ratio)
        for balanced in (False, True)
    ]


def teacher_candidates(texts: TrainingTexts) -> list[NgramCandidate]:
    """Return the candidates that learn from the teacher."""
    more = [False, True] if len(texts.labeled) < len(texts.train.texts) else [False]
    return [
        *(NgramCandidate("teacher", C, unlabeled) for unlabeled in more for C in (4.0, 16.0)),
        *(NgramCandidate("teacher logits", 1 / ridge, more[-1]) for ridge in RIDGES),
    ]


def _mixture(parts: Mixture, other: NgramCandidate, share: float) -> Mixture:
    """Return the mixture of the parts and a share of another candidate."""
    shares = {part: (1 - share) * own for part, own in parts.items()} | {other: share}
    return {part: own for part, own in shares.items() if own > 0}


def judge_out_of_fold(texts: TrainingTexts, candidate: NgramCandidate) -> Judged:
    """Judge a candidate on the labeled texts, each scored by the model that was fitted without its fold."""
    labeled = texts.labeled
    labels, folds = texts.train.labels[labeled], texts.folds[labeled]

    def fit(fold: int) -> Outputs:
        return _weights(texts, candidate, np.flatnonzero(texts.folds != fold))

    found = out_of_fold(texts.matrix[labeled], labels, folds, texts.count, fit)
    return Judged(found.logits, found.scale, found.score)


def judge_on_validation(texts: TrainingTexts, candidate: NgramCandidate) -> Judged:
    """Judge a candidate, fitted on all texts, on the validation texts."""
    logits = _outputs_on_validation(texts, _weights(texts, candidate, np.arange(len(texts.train.texts))))
    scale = calibrating_scale(texts.validation.labels, logits)
    return Judged(scale * logits, scale, Score.of(texts.validation.labels, scale * logits))


def _outputs_on_validation(texts: TrainingTexts, outputs: Outputs) -> np.ndarray:
    """Return the logits of the validation texts, float64 (texts, labels)."""
    weights, intercepts = outputs
    return as_logits(texts.held_out @ weights.T + intercepts)


def _weights(texts: TrainingTexts, candidate: NgramCandidate, rows: np.ndarray) -> Outputs:
    """Fit a candidate on some of the texts; return weights (outputs, columns) and intercepts (outputs,)."""
    if not candidate.unlabeled:
        rows = rows[texts.train.labels[rows] != UNLABELED]
    matrix, labels, teacher = texts.matrix[rows], texts.train.labels[rows], texts.train.teacher_logits
    if candidate.targets == "teacher logits":
        assert teacher is not None
        wanted = wanted_outputs(teacher[rows], labels, texts.alpha)
        return regress(matrix, wanted, ratio_scales(matrix, wanted), 1 / candidate.C)
    targets = targets_of(labels, texts.count) if candidate.targets == "labels" else _probabilities(texts, rows)
    how: dict[str, Any] = {"log_ratio": candidate.log_ratio, "balanced": candidate.balanced, "loss": candidate.loss}
    return fit_outputs(matrix, targets, candidate.C, **how)


def _probabilities(texts: TrainingTexts, rows: np.ndarray) -> np.ndarray:
    """Return the teacher's probabilities of all outputs, float64 (outputs, rows)."""
    assert texts.train.teacher_logits is not None
    probabilities = softmax(texts.train.teacher_logits[rows].astype(np.float64)).T
    return probabilities[1:] if texts.count == 2 else probabilities


def _table(texts: TrainingTexts, parts: Mixture, tried: Tried) -> Outputs:
    """Fit the parts on all texts; return the weights (outputs, columns) and intercepts (outputs,) of their mixture."""
    everything = np.arange(len(texts.train.texts))
    fitted = [(share * tried[part].scale, _weights(texts, part, everything)) for part, share in parts.items()]
    weights = np.sum([factor * own for factor, (own, _) in fitted], axis=0)
    return weights, np.sum([factor * own for factor, (_, own) in fitted], axis=0)

"""Fit the n-gram student (`toolkit.modeling.ngram`): several linear models of one table, and the best mixture of two.

All candidates are linear in the same hashed features, so a weighted sum of two is one table again and costs nothing at
inference. The linear model that knows only the labels (NBSVM, Wang and Manning 2012) is always among them. What the
others learn from the teacher, from unlabeled texts, or by regression of logits is used only where it is better on
out-of-fold rows.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from toolkit.evaluation.metrics import softmax
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import PAD_ID, character_tokenizer, rows_of
from toolkit.training.dataset import Examples
from toolkit.training.losses import UNLABELED
from toolkit.training.nbsvm import (
    Loss,
    OutOfFold,
    Outputs,
    Score,
    best_score,
    calibrating_scale,
    fit_output,
    out_of_fold,
    targets_of,
)
from toolkit.training.ngram_regression import (
    RIDGES,
    network_of,
    only_columns,
    ratio_scales,
    regress,
    tfidf,
    wanted_outputs,
)

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Candidate shares of the model that learned from the teacher; the rest is the model that learned from the labels."""
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

    @property
    def name(self) -> str:
        """Describe the candidate in tables and messages."""
        extras = (
            ", unlabeled texts" * self.unlabeled + ", balanced" * self.balanced + ", hinge" * (self.loss == "hinge")
        )
        return f"{self.targets}{extras}, C={self.C:.3g}"


@dataclass(frozen=True, eq=False)
class NgramFit:
    """The fitted student and how it was chosen."""

    student: Classifier
    logits: np.ndarray
    """float32 (labeled texts, labels): out-of-fold logits of the chosen mixture."""
    details: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Texts:
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

    @property
    def labeled(self) -> np.ndarray:
        return np.flatnonzero(self.train.labels != UNLABELED)


Tried = dict[NgramCandidate, OutOfFold]


def fit_ngram(
    student: str,
    train: Examples,
    labels: tuple[str, ...],
    alpha: float,
    folds: np.ndarray,
    watch: Callable[[int, dict[str, float]], None] | None = None,
) -> NgramFit:
    """Fit the student `ngram[:BITS]` on labels and, if `train` has them, on the logits of a teacher.

    alpha: weight of the teacher logits against the labels in the regression of logits.
    folds: int (texts,), the fold of each text, -1 for none.
    watch: as in `toolkit.training.trainer.Loop`, where each candidate counts as an epoch.
    Raises: InputError if the name is invalid.
    """
    texts = _texts_of(train, rows_of(student), len(labels), alpha, folds)
    history: list[dict[str, float]] = []
    tried: Tried = {}

    def best(candidates: list[NgramCandidate]) -> NgramCandidate:
        return candidates[best_score([tried[candidate].score for candidate in candidates])]

    def evaluate(candidates: list[NgramCandidate]) -> NgramCandidate:
        """Fit candidates out of fold; return the best of them."""
        for candidate in candidates:
            tried[candidate] = _out_of_fold(texts, candidate)
            score = tried[candidate].score
            history.append({"epoch": len(history) + 1, "val_loss": score.log_loss, "val_macro_f1": score.macro_f1})
            if watch is not None:
                watch(len(history), history[-1])
        return best(candidates)

    of_labels = evaluate([NgramCandidate("labels", C) for C in (1.0, 4.0, 8.0)])
    of_labels = best([of_labels, evaluate([NgramCandidate("labels", of_labels.C, balanced=True)])])
    hinge = evaluate([NgramCandidate("labels", HINGE_C, balanced=balanced, loss="hinge") for balanced in (False, True)])
    of_labels = best([of_labels, hinge])
    parts = {of_labels: 1.0}
    if train.teacher_logits is not None:
        parts = _best_mixture(texts, tried, of_labels, evaluate(_teacher_candidates(texts)))
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
    labels: tuple[str, ...],
    alpha: float,
    folds: np.ndarray,
    mixture: dict[NgramCandidate, float],
) -> NgramFit:
    """Fit the mixture that `fit_ngram` has chosen again, with another number of table rows and without a search.

    mixture: see `mixture_in`. The other arguments are as in `fit_ngram`.
    """
    texts = _texts_of(train, rows, len(labels), alpha, folds)
    tried = {candidate: _out_of_fold(texts, candidate) for candidate in mixture}
    return _finished(texts, mixture, tried, labels, {})


def mixture_in(details: dict[str, Any]) -> dict[NgramCandidate, float]:
    """Return the chosen candidates and their shares from the details of a fit."""
    fields = {each["name"]: {k: v for k, v in each.items() if k != "name"} for each in details["candidates"]}
    return {NgramCandidate(**fields[name]): share for name, share in details["mixture"].items()}


def _texts_of(train: Examples, rows: int, count: int, alpha: float, folds: np.ndarray) -> _Texts:
    tokenizer = character_tokenizer(train.texts)
    features = tfidf(tokenizer, train.texts, rows)
    used = np.flatnonzero(features.squared_idf)
    return _Texts(
        train, tokenizer, features.squared_idf, used, only_columns(features.matrix, used), folds, alpha, count
    )


def _finished(
    texts: _Texts,
    parts: dict[NgramCandidate, float],
    tried: Tried,
    labels: tuple[str, ...],
    details: dict[str, Any],
) -> NgramFit:
    """Fit the chosen mixture on all texts, with calibrated logits."""
    logits = np.sum([share * tried[candidate].logits for candidate, share in parts.items()], axis=0)
    weights, intercept = _table(texts, parts, tried)
    scale = calibrating_scale(texts.train.labels[texts.labeled], logits)
    everything = np.zeros((len(weights), len(texts.squared_idf)))
    everything[:, texts.used] = scale * weights
    network = network_of(texts.squared_idf, everything, scale * intercept)
    details |= {"mixture": {candidate.name: share for candidate, share in parts.items()}}
    details |= {"table_rows_used": len(texts.used)}
    student = Classifier(network, texts.tokenizer, PAD_ID, labels)
    return NgramFit(student, (scale * logits).astype(np.float32), details)


def _teacher_candidates(texts: _Texts) -> list[NgramCandidate]:
    """Return the candidates that learn from the teacher."""
    more = [False, True] if len(texts.labeled) < len(texts.train.texts) else [False]
    return [
        *(NgramCandidate("teacher", C, unlabeled) for unlabeled in more for C in (4.0, 16.0)),
        *(NgramCandidate("teacher logits", 1 / ridge, more[-1]) for ridge in RIDGES),
    ]


def _best_mixture(
    texts: _Texts, tried: Tried, of_labels: NgramCandidate, of_teacher: NgramCandidate
) -> dict[NgramCandidate, float]:
    """Return the shares of the two candidates whose mixture is best out of fold."""
    labels, first, second = texts.train.labels[texts.labeled], tried[of_labels].logits, tried[of_teacher].logits
    share = SHARES[best_score([Score.of(labels, (1 - share) * first + share * second) for share in SHARES])]
    return {c: s for c, s in ((of_labels, 1 - share), (of_teacher, share)) if s > 0}


def _out_of_fold(texts: _Texts, candidate: NgramCandidate) -> OutOfFold:
    labeled = texts.labeled
    labels, folds = texts.train.labels[labeled], texts.folds[labeled]

    def fit(fold: int) -> Outputs:
        return _weights(texts, candidate, np.flatnonzero(texts.folds != fold))

    return out_of_fold(texts.matrix[labeled], labels, folds, texts.count, fit)


def _weights(texts: _Texts, candidate: NgramCandidate, rows: np.ndarray) -> Outputs:
    """Fit a candidate on some of the texts; return weights (outputs, columns) and intercepts (outputs,)."""
    if not candidate.unlabeled:
        rows = rows[texts.train.labels[rows] != UNLABELED]
    matrix, labels, teacher = texts.matrix[rows], texts.train.labels[rows], texts.train.teacher_logits
    if candidate.targets == "teacher logits":
        assert teacher is not None
        wanted = wanted_outputs(teacher[rows], labels, texts.alpha)
        return regress(matrix, wanted, ratio_scales(matrix, wanted), 1 / candidate.C)
    targets = targets_of(labels, texts.count) if candidate.targets == "labels" else _probabilities(texts, rows)
    how: dict[str, Any] = {"balanced": candidate.balanced, "loss": candidate.loss}
    fitted = [fit_output(matrix, target, candidate.C, **how) for target in targets]
    return np.stack([weights for weights, _ in fitted]), np.array([each for _, each in fitted])


def _probabilities(texts: _Texts, rows: np.ndarray) -> np.ndarray:
    """Return the teacher's probabilities of all outputs, float64 (outputs, rows)."""
    assert texts.train.teacher_logits is not None
    probabilities = softmax(texts.train.teacher_logits[rows].astype(np.float64)).T
    return probabilities[1:] if texts.count == 2 else probabilities


def _table(texts: _Texts, parts: dict[NgramCandidate, float], tried: Tried) -> Outputs:
    """Fit the parts on all texts; return the weights (outputs, columns) and intercepts (outputs,) of their mixture."""
    everything = np.arange(len(texts.train.texts))
    fitted = [(share * tried[part].scale, _weights(texts, part, everything)) for part, share in parts.items()]
    weights = np.sum([factor * own for factor, (own, _) in fitted], axis=0)
    return weights, np.sum([factor * own for factor, (_, own) in fitted], axis=0)

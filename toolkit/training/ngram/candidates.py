"""The linear models that an n-gram student may be a mixture of, and the texts that they are fitted on."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from toolkit.evaluation.metrics import softmax
from toolkit.modeling.ngram import character_tokenizer
from toolkit.training.dataset import Examples
from toolkit.training.losses import UNLABELED
from toolkit.training.nbsvm import Loss, Outputs, fit_outputs, targets_of
from toolkit.training.ngram.regression import (
    RIDGES,
    TableRows,
    features_of,
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
class TrainingTexts:
    """Training texts as features and targets."""

    train: Examples
    tokenizer: Tokenizer
    rows: TableRows
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


def texts_of(
    train: Examples,
    validation: Examples,
    rows: int,
    count: int,
    alpha: float,
    folds: np.ndarray,
    words: bool = False,
) -> TrainingTexts:
    """Return the texts as features over a table of `rows`; the others are as in `toolkit.training.ngram.search`.

    words: with words and pairs of words beside the windows of characters.
    """
    tokenizer = character_tokenizer(train.texts)
    features = tfidf(tokenizer, train.texts, rows, words)
    used = np.flatnonzero(features.rows.squared_idf)
    matrix = only_columns(features.matrix, used)
    held_out = only_columns(features_of(tokenizer, validation.texts, features.rows), used)
    return TrainingTexts(train, tokenizer, features.rows, used, matrix, folds, alpha, count, validation, held_out)


def linear_svms(log_ratio: bool) -> list[NgramCandidate]:
    """Return the linear SVMs, with plain and with balanced labels."""
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


def fit_candidate(texts: TrainingTexts, candidate: NgramCandidate, rows: np.ndarray) -> Outputs:
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

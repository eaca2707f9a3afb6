"""Linear classifiers on TF-IDF features scaled by naive Bayes log-ratios (NBSVM, Wang and Manning 2012)."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, TypeVar

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import logsumexp

from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.rule_choice import best_macro_f1
from toolkit.modeling.linear import as_logits
from toolkit.utils.machine import usable_cores

Item = TypeVar("Item")
Fitted = TypeVar("Fitted")
Loss = Literal["logistic", "hinge"]
Outputs = tuple[np.ndarray, np.ndarray]
"""Weights (outputs, features) and intercepts (outputs,) of a linear classifier."""
TOLERANCE, ITERATIONS = 3e-5, 1000
"""Of L-BFGS. Its tolerance is that of a mean over the rows; at scikit-learn's default it stops far from the minimum."""
SCALES = np.geomspace(0.1, 10, 41)
"""Candidate factors of the logits of a classifier."""
STEP = 2**22
"""Numbers of a matrix that are computed at a time."""
NEARLY = 0.005
"""Half a point of macro-F1: two settings that differ by less count as equally good."""
RACED = 2**25
"""Numbers of the features times labels from which a setting is left out after its first fold if it is behind."""
_LIBLINEAR = Lock()
"""Its random numbers are global: fits at the same time would take each other's, and differ from run to run."""
CERTAIN = 10.0
"""Output for a label that all rows have; for one that none has, its negative."""


def fit_output(
    matrix: Any,
    target: np.ndarray,
    C: float,
    *,
    log_ratio: bool = True,
    balanced: bool = False,
    loss: Loss = "logistic",
) -> tuple[np.ndarray, float]:
    """Fit one label against the rest; return weights of the unscaled features, float32 (features,), and the intercept.

    matrix: sparse CSR float32 (rows, features).
    target: (rows,) probability of the label, 0 or 1 for a hinge loss.
    C: inverse weight of the L2 penalty, as in scikit-learn.
    log_ratio: scale each feature by its log-ratio, so that features that distinguish the label are penalized less.
    balanced: weight rows so that the label and the rest count the same.
    """
    positive, negative = np.flatnonzero(target > 0), np.flatnonzero(target < 1)
    if len(positive) == 0 or len(negative) == 0:
        return np.zeros(matrix.shape[1], dtype=np.float32), CERTAIN if len(positive) else -CERTAIN
    scales = log_ratios(matrix, target) if log_ratio else np.ones(matrix.shape[1], dtype=np.float32)
    data = matrix.data.copy()
    for start in range(0, len(data), STEP):
        data[start : start + STEP] *= scales[matrix.indices[start : start + STEP]]
    features = csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape, copy=False)
    sides, weight = target > 0, np.ones(len(target))
    if len(positive) + len(negative) > len(target):
        # A row with a probability between 0 and 1 is on both sides, with the probability as its weight.
        features = features[np.concatenate([positive, negative])]
        sides = np.repeat([True, False], [len(positive), len(negative)])
        weight = np.concatenate([target[positive], 1 - target[negative]])
    if balanced:
        share = float(target.mean())
        weight = weight * np.where(sides, 0.5 / share, 0.5 / (1 - share))
    with _LIBLINEAR if loss == "hinge" else nullcontext():
        found = _solver(C, loss).fit(features, sides, weight)
    return (found.coef_[0] * scales).astype(np.float32), float(np.ravel(found.intercept_)[0])


def fit_outputs(matrix: Any, targets: Iterable[np.ndarray], C: float, **how: Any) -> Outputs:
    """Fit all outputs, each as in `fit_output`, whose keyword arguments `how` has."""
    fitted = in_threads(lambda target: fit_output(matrix, target, C, **how), list(targets))
    return np.stack([weights for weights, _ in fitted]), np.array([each for _, each in fitted], dtype=np.float32)


def log_ratios(matrix: Any, target: np.ndarray) -> np.ndarray:
    """Return the log-ratio of each feature between the rows of a label and the others, float32 (features,).

    matrix: sparse CSR (rows, features); every stored value counts as present.
    """
    # It shares the indices of the matrix, which are half of its bytes.
    ones = np.ones(len(matrix.data), dtype=np.float32)
    present = csr_matrix((ones, matrix.indices, matrix.indptr), shape=matrix.shape, copy=False)
    positive = 1 + present.T @ target
    negative = 2 + np.bincount(matrix.indices, minlength=matrix.shape[1]) - positive
    return (np.log(positive / positive.sum()) - np.log(negative / negative.sum())).astype(np.float32)


def targets_of(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the targets of all outputs, float64 (outputs, rows): of label 1 for two labels, else of every label."""
    one_hot = np.eye(count)[labels].T
    return one_hot[1:] if count == 2 else one_hot


def calibrating_scale(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the factor of SCALES with which logits (rows, labels) have the lowest cross-entropy."""
    return float(min(SCALES, key=lambda scale: log_loss(labels, scale * logits)))


def log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean cross-entropy of logits (rows, labels)."""
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())


@dataclass(frozen=True)
class Score:
    """How good a setting is out of fold."""

    macro_f1: float
    """At the decision rule that is best on these rows."""
    log_loss: float

    @staticmethod
    def of(labels: np.ndarray, logits: np.ndarray) -> "Score":
        """Return the score of calibrated logits (rows, labels)."""
        return Score(best_macro_f1(labels, softmax(logits)), log_loss(labels, logits))


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """A setting, fitted without each fold."""

    models: list[Outputs]
    """One for each fold, in order."""
    logits: np.ndarray
    """float64 (rows, labels), calibrated: of each row, from the model that was fitted without its fold."""
    scale: float
    """The factor that calibrates the logits of a model."""
    score: Score


Fit = Callable[[int], Outputs]
"""Fold -> the classifier that is fitted without it."""


def out_of_fold(matrix: Any, labels: np.ndarray, folds: np.ndarray, fit: Fit) -> OutOfFold:
    """Fit a classifier without each fold and score it on the rows of that fold.

    matrix: sparse features (rows, features). folds: int (rows,).
    fit: called in threads for two labels: one output for each fold. Of more labels, the outputs have a thread each.
    """
    places = np.unique(folds).tolist()
    models = in_threads(fit, places) if len(np.unique(labels)) <= 2 else [fit(place) for place in places]
    held_out = [_logits(matrix[folds == place], model) for place, model in zip(places, models, strict=True)]
    logits = np.empty((len(labels), held_out[0].shape[1]))
    for place, own in zip(places, held_out, strict=True):
        logits[folds == place] = own
    scale = calibrating_scale(labels, logits)
    return OutOfFold(models, scale * logits, scale, Score.of(labels, scale * logits))


def is_behind(matrix: Any, labels: np.ndarray, folds: np.ndarray, fit: Fit, rival: np.ndarray) -> bool:
    """Return whether a classifier is behind another one on the first fold; never where fits are short.

    It is if its macro-F1 is worse by NEARLY and its loss higher: it would hardly be chosen on all folds.

    rival: out-of-fold logits of the other one, (rows, labels). The other arguments are as in `out_of_fold`.
    """
    if matrix.nnz * rival.shape[1] < RACED:
        return False
    place = int(folds.min())
    first = folds == place
    logits = _logits(matrix[first], fit(place)), rival[first]
    own, other = (Score.of(labels[first], calibrating_scale(labels[first], each) * each) for each in logits)
    return own.macro_f1 < other.macro_f1 - NEARLY and own.log_loss > other.log_loss


def _logits(matrix: Any, model: Outputs) -> np.ndarray:
    weights, intercepts = model
    return as_logits(matrix @ weights.T + intercepts)


def in_threads(fit: Callable[[Item], Fitted], items: Sequence[Item]) -> list[Fitted]:
    """Return the fits of all items, made on as many cores as there are, each on one."""
    import sklearn.linear_model  # before the limit, which holds for the libraries that are loaded
    import sklearn.svm  # noqa: F401
    from threadpoolctl import threadpool_limits

    # A solver makes many small BLAS calls: their threads only wait for each other, above all on a busy machine.
    with threadpool_limits(1):
        if len(items) == 1:
            return [fit(items[0])]
        with ThreadPoolExecutor(min(usable_cores(), len(items))) as threads:
            return list(threads.map(fit, items))


def best_score(scores: Sequence[Score]) -> int:
    """Return the index of the lowest loss among the scores that are nearly the best in macro-F1.

    Macro-F1 depends on single rows, so the best of several nearly equal ones would be a matter of luck.
    """
    nearly = max(score.macro_f1 for score in scores) - NEARLY
    return min((i for i, score in enumerate(scores) if score.macro_f1 >= nearly), key=lambda i: scores[i].log_loss)


def _solver(C: float, loss: Loss) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if loss == "hinge":
        return LinearSVC(C=C, random_state=0)
    return LogisticRegression(C=C, tol=TOLERANCE, max_iter=ITERATIONS)

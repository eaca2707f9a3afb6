"""Fit the linear baseline: logistic regression or a linear SVM on TF-IDF of character n-grams.

As in NBSVM (Wang and Manning 2012), each feature may be scaled by its naive Bayes log-ratio, so that n-grams that
distinguish the labels are penalized less. Loss, penalty, class weights, scaling and word n-grams are chosen by
cross-validation on the training rows of the corpus at hand.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.rule_choice import Choice, best_macro_f1, choose_rule
from toolkit.modeling.linear import LinearModel, TextFeatures, as_logits, fit_features
from toolkit.utils import console

TOLERANCE, ITERATIONS = 1e-3, 300
SCALES = np.geomspace(0.1, 10, 41)
"""Candidate factors of the logits; the one with the lowest cross-entropy out of fold makes them calibrated."""


@dataclass(frozen=True)
class LinearSettings:
    """The settings that are chosen by cross-validation."""

    loss: Literal["logistic", "hinge"] = "logistic"
    C: float = 4.0
    """Inverse weight of the L2 penalty, as in scikit-learn."""
    log_ratio: bool = True
    """Scale each feature by its naive Bayes log-ratio (NBSVM)."""
    balanced: bool = False
    """Weight rows so that all labels count the same."""
    words: bool = False
    """Add n-grams of words to those of characters."""


START = LinearSettings()
STEPS: tuple[tuple[dict[str, Any], ...], ...] = (
    ({"C": 1.0}, {"C": 8.0}),
    ({"balanced": True},),
    ({"words": True},),
    ({"log_ratio": False}, {"log_ratio": False, "C": 16.0}),
    ({"loss": "hinge", "C": 0.1}, {"loss": "hinge", "C": 1.0}),
)
"""Changes that are tried, one step after the other, each on the best settings so far."""


@dataclass(frozen=True)
class Trial:
    """One setting, measured out of fold on the training rows."""

    settings: LinearSettings
    macro_f1: float
    """At the decision rule that is best on these rows."""

    def as_dict(self) -> dict[str, Any]:
        """Return the trial for a JSON file."""
        return asdict(self.settings) | {"macro_f1": self.macro_f1}


@dataclass(frozen=True, eq=False)
class LinearFit:
    """The linear baseline, and the models without each fold for out-of-fold logits."""

    model: LinearModel
    """Fitted on all training rows."""
    folds: tuple[LinearModel, ...]
    """Model k is fitted on all training rows outside fold k."""
    settings: LinearSettings
    trials: tuple[Trial, ...]
    choice: Choice
    """The decision rule, chosen on out-of-fold and validation rows."""

    def logits(self, texts: Sequence[str], folds: np.ndarray) -> np.ndarray:
        """Return logits, float32 (texts, labels), each from the model fitted without the text's fold.

        folds: int (texts,); -1 for a text of no fold, which gets the logits of the model fitted on all training rows.
        """
        logits = np.empty((len(texts), len(self.model.labels)), dtype=np.float32)
        for place in np.unique(folds):
            chosen = np.flatnonzero(folds == place)
            model = self.model if place < 0 else self.folds[place]
            logits[chosen] = model.predict_logits([texts[i] for i in chosen.tolist()])
        return logits


def fit_linear(corpus: Corpus) -> LinearFit:
    """Fit the linear baseline of a corpus, with settings and decision rule chosen on its training and validation rows.

    The search changes one setting at a time and keeps what is better out of fold.
    """
    data = _Data(corpus, corpus.rows("train"), {})
    with console.bar("linear baseline", 1 + sum(map(len, STEPS))) as advance:
        trials = [_trial(data, START)]
        advance(1)
        for step in STEPS:
            best = max(trials, key=lambda trial: trial.macro_f1).settings
            for change in step:
                trials.append(_trial(data, replace(best, **change)))
                advance(1)
    settings = max(trials, key=lambda trial: trial.macro_f1).settings
    return _finished(data, settings, tuple(trials))


@dataclass(frozen=True, eq=False)
class _Data:
    corpus: Corpus
    rows: np.ndarray
    """Training rows."""
    cached: dict[bool, tuple[TextFeatures, Any]]
    """With or without words -> the features and their matrix on the training rows."""

    @property
    def labels(self) -> np.ndarray:
        return self.corpus.labels[self.rows]

    @property
    def folds(self) -> np.ndarray:
        return self.corpus.fold[self.rows]

    def features(self, words: bool) -> tuple[TextFeatures, Any]:
        """Return the features, fitted on the training rows, and their matrix: sparse float32 (rows, features)."""
        if words not in self.cached:
            self.cached[words] = fit_features(self.corpus.take(self.rows), words)
        return self.cached[words]


def _trial(data: _Data, settings: LinearSettings) -> Trial:
    return Trial(settings, best_macro_f1(data.labels, softmax(_out_of_fold(data, settings).logits)))


@dataclass(frozen=True, eq=False)
class _OutOfFold:
    logits: np.ndarray
    """float64 (rows, labels), calibrated: of each training row, from the model that was fitted without its fold."""
    models: list[tuple[np.ndarray, np.ndarray]]
    """Weights and intercepts without each fold."""
    scale: float
    """The factor that calibrates the logits of a model."""


def _out_of_fold(data: _Data, settings: LinearSettings) -> _OutOfFold:
    _, matrix = data.features(settings.words)
    count = len(data.corpus.label_names)
    logits = np.empty((len(data.rows), count))
    models = []
    for fold in range(data.corpus.folds):
        inside = data.folds == fold
        weights, intercept = _weights(matrix[~inside], data.labels[~inside], count, settings)
        logits[inside] = as_logits(matrix[inside] @ weights.T + intercept)
        models.append((weights, intercept))
    scale = float(min(SCALES, key=lambda s: _loss(data.labels, s * logits)))
    return _OutOfFold(scale * logits, models, scale)


def _loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean cross-entropy of logits (rows, labels)."""
    from scipy.special import logsumexp

    return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())


def _weights(matrix: Any, labels: np.ndarray, count: int, settings: LinearSettings) -> tuple[np.ndarray, np.ndarray]:
    """Fit one classifier per label against the rest, or one for two labels.

    matrix: sparse (rows, features). Returns: weights float32 (outputs, features) and intercepts float32 (outputs,).
    """
    weights, intercepts = [], []
    for label in [1] if count == 2 else range(count):
        mine = labels == label
        if mine.all() or not mine.any():  # a fold without the label
            weights.append(np.zeros(matrix.shape[1]))
            intercepts.append(10.0 if mine.all() else -10.0)
            continue
        scales = _log_ratios(matrix, mine) if settings.log_ratio else np.ones(matrix.shape[1], dtype=np.float32)
        found = _solver(settings).fit(_scaled(matrix, scales), mine)
        weights.append(found.coef_[0] * scales)
        intercepts.append(float(np.ravel(found.intercept_)[0]))
    return np.stack(weights).astype(np.float32), np.array(intercepts, dtype=np.float32)


def _log_ratios(matrix: Any, mine: np.ndarray) -> np.ndarray:
    """Return the log-ratio of each feature between the rows of a label and the others, float32 (features,)."""
    present = matrix.astype(bool).astype(np.float32)
    positive = 1 + present.T @ mine.astype(np.float32)
    negative = 1 + present.T @ (~mine).astype(np.float32)
    return (np.log(positive / positive.sum()) - np.log(negative / negative.sum())).astype(np.float32)


def _scaled(matrix: Any, scales: np.ndarray) -> Any:
    """Return the matrix with its columns scaled, sharing its structure."""
    from scipy.sparse import csr_matrix

    return csr_matrix((matrix.data * scales[matrix.indices], matrix.indices, matrix.indptr), shape=matrix.shape)


def _solver(settings: LinearSettings) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    weights = "balanced" if settings.balanced else None
    if settings.loss == "hinge":
        return LinearSVC(C=settings.C, class_weight=weights, random_state=0)
    return LogisticRegression(C=settings.C, class_weight=weights, tol=TOLERANCE, max_iter=ITERATIONS)


def _finished(data: _Data, settings: LinearSettings, trials: tuple[Trial, ...]) -> LinearFit:
    """Fit the chosen settings on all training rows and choose the decision rule."""
    corpus, found = data.corpus, _out_of_fold(data, settings)
    features, matrix = data.features(settings.words)
    last = _weights(matrix, data.labels, len(corpus.label_names), settings)
    made = [
        LinearModel(corpus.label_names, DecisionRule(), features, found.scale * weights, found.scale * intercept)
        for weights, intercept in [*found.models, last]
    ]
    validation = corpus.rows("validation")
    logits = np.concatenate([found.logits, made[-1].predict_logits(corpus.take(validation))])
    choice = choose_rule(np.concatenate([data.labels, corpus.labels[validation]]), softmax(logits))
    *folds, model = (replace(each, rule=choice.rule) for each in made)
    return LinearFit(model, tuple(folds), settings, trials, choice)

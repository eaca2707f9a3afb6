"""Fit the linear baseline: logistic regression or a linear SVM on TF-IDF of character n-grams.

As in NBSVM (Wang and Manning 2012), each feature may be scaled by its naive Bayes log-ratio, so that n-grams that
distinguish the labels are penalized less. Loss, penalty, class weights, scaling and word n-grams are chosen by
cross-validation on the training rows of the corpus at hand.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.rule_choice import Choice, choose_rule
from toolkit.modeling.linear import LinearModel, TextFeatures, fit_features
from toolkit.training.nbsvm import (
    Fit,
    Loss,
    OutOfFold,
    Outputs,
    Score,
    best_score,
    fit_outputs,
    is_behind,
    out_of_fold,
    targets_of,
)
from toolkit.utils import console


@dataclass(frozen=True)
class LinearSettings:
    """The settings that are chosen by cross-validation."""

    loss: Loss = "logistic"
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
    score: Score

    def as_dict(self) -> dict[str, Any]:
        """Return the trial for a JSON file."""
        return asdict(self.settings) | asdict(self.score)


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


def fit_linear(corpus: Corpus, known: LinearSettings | None = None) -> LinearFit:
    """Fit the linear baseline of a corpus, with settings and decision rule chosen on its training and validation rows.

    The search changes one setting at a time and keeps what is better out of fold. Of a large corpus, a setting that is
    behind on the first fold is not fitted on the others.
    known: settings that a search on this corpus has found; they are used without another search.
    """
    data = _Data(corpus, corpus.rows("train"), {})
    if known is not None:
        return _finished(data, {known: _out_of_fold(data, known)})
    with console.bar("linear baseline", 1 + sum(map(len, STEPS))) as advance:
        tried = {START: _out_of_fold(data, START)}
        advance(1)
        for step in STEPS:
            best = _best(tried)
            for settings in [replace(best, **change) for change in step]:
                without = _fits(data, settings)
                if not is_behind(*data.rows_of(settings), without, tried[best].logits):
                    tried[settings] = out_of_fold(*data.rows_of(settings), without)
                advance(1)
    return _finished(data, tried)


def try_setting(corpus: Corpus, settings: LinearSettings = START) -> Score:
    """Return the score of one setting out of fold: one trial of the search in `fit_linear`."""
    return _out_of_fold(_Data(corpus, corpus.rows("train"), {}), settings).score


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

    def rows_of(self, settings: LinearSettings) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return features, labels and folds of the training rows."""
        return self.features(settings.words)[1], self.labels, self.corpus.fold[self.rows]

    def features(self, words: bool) -> tuple[TextFeatures, Any]:
        """Return the features, fitted on the training rows, and their matrix: sparse float32 (rows, features)."""
        if words not in self.cached:
            self.cached[words] = fit_features(self.corpus.take(self.rows), words)
        return self.cached[words]


def _best(tried: dict[LinearSettings, OutOfFold]) -> LinearSettings:
    return list(tried)[best_score([found.score for found in tried.values()])]


def _out_of_fold(data: _Data, settings: LinearSettings) -> OutOfFold:
    return out_of_fold(*data.rows_of(settings), _fits(data, settings))


def _fits(data: _Data, settings: LinearSettings) -> Fit:
    """Return what fits the settings without a fold, each fold once."""
    matrix, labels, folds = data.rows_of(settings)
    count = len(data.corpus.label_names)
    return cache(lambda fold: _weights(matrix[folds != fold], labels[folds != fold], count, settings))


def _weights(matrix: Any, labels: np.ndarray, count: int, settings: LinearSettings) -> Outputs:
    """Fit all outputs; return weights float32 (outputs, features) and intercepts float32 (outputs,)."""
    how = {name: value for name, value in asdict(settings).items() if name != "words"}
    return fit_outputs(matrix, targets_of(labels, count), **how)


def _finished(data: _Data, tried: dict[LinearSettings, OutOfFold]) -> LinearFit:
    """Fit the best settings on all training rows and choose the decision rule."""
    corpus, settings = data.corpus, _best(tried)
    found = tried[settings]
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
    trials = tuple(Trial(each, result.score) for each, result in tried.items())
    return LinearFit(model, tuple(folds), settings, trials, choice)

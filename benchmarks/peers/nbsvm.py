"""NBSVM (Wang and Manning 2012) in scikit-learn: binary features times naive Bayes log-count ratios, and a linear SVM.

One against the rest for more than two labels. Features are words, word pairs and character n-grams, or words and word
pairs alone.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from benchmarks.peers.common import Given, Label, Rows, best_of

FILE = "nbsvm.skops"
SETTINGS: list[dict[str, Any]] = [
    {"letters": letters, "C": c, "beta": beta} for letters in (False, True) for c in (0.1, 1.0) for beta in (0.25, 1.0)
]
"""beta: 1 takes the weights as they are; less moves them towards their mean magnitude, as in the paper."""


class LogCountRatio(TransformerMixin, BaseEstimator):
    """Multiply each binary feature by its log-count ratio between the rows of a label and the others."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, features: Any, target: np.ndarray) -> "LogCountRatio":
        """Count the features (rows, features) of both sides; target: (rows,), 1 for the label."""
        sides = [self.alpha + np.asarray(features[np.asarray(target) == side].sum(axis=0)).ravel() for side in (1, 0)]
        self.ratio_ = np.log(sides[0] / sides[0].sum()) - np.log(sides[1] / sides[1].sum())
        return self

    def transform(self, features: Any) -> Any:
        """Return the features times their ratio."""
        return features.multiply(self.ratio_).tocsr()


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Train with the features, penalty and interpolation that are best on validation rows, and write the model."""
    from skops.io import dump

    matrices: dict[bool, tuple[Any, Any]] = {}

    def fit(settings: dict[str, Any]) -> Any:
        from sklearn.pipeline import make_pipeline

        letters = settings["letters"]
        if letters not in matrices:
            vectorizer = _vectorizer(letters)
            matrices[letters] = vectorizer, vectorizer.fit_transform(rows.texts)
        vectorizer, features = matrices[letters]
        classifier = _classifier(settings["C"]).fit(features, rows.labels)
        _interpolate(classifier, settings["beta"])
        return make_pipeline(vectorizer, classifier)

    model, settings, best = best_of(rows, SETTINGS, fit, _labels)
    dump(model, folder / FILE)
    return {"settings": settings, "validation": {"nbsvm": best}}


def load(folder: Path, names: Sequence[str], model: str) -> Label:
    """Return the function that labels texts."""
    from skops.io import get_untrusted_types, load as load_skops

    return _labels(load_skops(folder / FILE, trusted=get_untrusted_types(file=folder / FILE)))


def _vectorizer(letters: bool) -> Any:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.pipeline import make_union

    # The default pattern would cut Bangla words at their vowel signs.
    words = CountVectorizer(binary=True, ngram_range=(1, 2), token_pattern=r"\S+", dtype=np.float64)
    if not letters:
        return words
    return make_union(
        words, CountVectorizer(binary=True, analyzer="char_wb", ngram_range=(2, 5), min_df=2, dtype=np.float64)
    )


def _classifier(C: float) -> Any:
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    return OneVsRestClassifier(make_pipeline(LogCountRatio(), LinearSVC(C=C)))


def _interpolate(classifier: Any, beta: float) -> None:
    """Move the weights of every SVM towards their mean magnitude."""
    for each in classifier.estimators_:
        weights = each[-1].coef_  # (1, features)
        each[-1].coef_ = (1 - beta) * np.abs(weights).mean() + beta * weights


def _labels(model: Any) -> Label:
    return partial(_predict, model)


def _predict(model: Any, texts: Sequence[str]) -> list[str]:
    return [str(name) for name in model.predict(list(texts))]

"""scikit-learn: TF-IDF of words and word pairs with logistic regression, and of character n-grams with a linear SVM."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Label, Rows, best_of

LOGISTIC, SVM = "tfidf-logistic-regression", "tfidf-linear-svc"
PENALTIES: dict[str, tuple[float, ...]] = {LOGISTIC: (1, 4, 16, 64), SVM: (0.1, 0.3, 1, 3)}
FILES = {LOGISTIC: "logistic.skops", SVM: "svm.skops"}


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Train both with the penalty and class weights that are best on validation rows, and write them."""
    from skops.io import dump

    found: dict[str, Any] = {"settings": {}, "validation": {}}
    for kind, penalties in PENALTIES.items():
        settings = [{"C": c, "class_weight": weights} for c in penalties for weights in (None, "balanced")]

        def fit(chosen: dict[str, Any], kind: str = kind) -> Any:
            return _pipeline(kind, chosen).fit(rows.texts, rows.labels)

        model, found["settings"][kind], found["validation"][kind] = best_of(rows, settings, fit, _labels)
        dump(model, folder / FILES[kind])
    return found


def load(folder: Path, names: Sequence[str], variant: str) -> Label:
    """Return the function that labels texts. variant: LOGISTIC or SVM."""
    from skops.io import get_untrusted_types, load as load_skops

    file = folder / FILES[variant]
    return _labels(load_skops(file, trusted=get_untrusted_types(file=file)))


def _pipeline(kind: str, settings: dict[str, Any]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    if kind == LOGISTIC:
        # The default pattern would cut Bangla words at their vowel signs.
        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"\S+")
        return make_pipeline(words, LogisticRegression(max_iter=1000, **settings))
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True)
    return make_pipeline(letters, LinearSVC(**settings))


def _labels(model: Any) -> Label:
    return partial(_predict, model)


def _predict(model: Any, texts: Sequence[str]) -> list[str]:
    return [str(name) for name in model.predict(list(texts))]

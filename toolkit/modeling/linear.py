"""The linear baseline: a linear classifier over character n-grams, reported next to every other result.

It trains in seconds, so a model that takes hours to train should beat it. It is saved as JSON and safetensors, so
loading it never unpickles.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.data.normalization import normalize
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration
from toolkit.utils.errors import InputError

# Selected by 3-fold cross-validation on the training rows of bangla_hate.csv (12,305 rows), never on its
# validation or test rows. Mean macro-F1 at threshold 0.5 for C = 1, 2, 4, 8:
#   char_wb 2-5  0.8197  0.8243  0.8265  0.8219    (ROC-AUC at 4: 0.9096)
#   char    2-5  0.8113  0.8164  0.8201  0.8173    (ROC-AUC at 4: 0.9053)
ANALYZER, NGRAMS, INVERSE_REGULARIZATION = "char_wb", (2, 5), 4.0

TEXT_FILE, WEIGHTS_FILE = "floor.json", "floor.safetensors"


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A predictor with TF-IDF features and logistic regression."""

    labels: tuple[str, ...]
    threshold: float | None
    vectorizer: Any
    """sklearn TfidfVectorizer."""
    classifier: Any
    """sklearn LogisticRegression; its class i is `labels[i]`."""

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        if len(texts) == 0:
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        features = self.vectorizer.transform(_normalized(texts))  # sparse (texts, n-grams)
        return self.classifier.predict_proba(features).astype(np.float32)  # (texts, labels)


def fit_linear(corpus: Corpus, rows: np.ndarray | None = None) -> LinearModel:
    """Fit on the training rows (or on `rows`) and, for two labels, choose the threshold on the validation rows."""
    rows, validation = corpus.rows("train") if rows is None else rows, corpus.rows("validation")
    vectorizer, classifier = _vectorizer(min_df=2), _classifier()
    classifier.fit(vectorizer.fit_transform(_normalized(corpus.take(rows))), corpus.labels[rows])
    model = LinearModel(corpus.label_names, None, vectorizer, classifier)
    metrics = calculate_metrics_with_threshold_exploration(
        corpus.labels[validation], model.predict_proba(corpus.take(validation))
    )
    return LinearModel(corpus.label_names, metrics.get("best_threshold"), vectorizer, classifier)


def save(model: LinearModel, folder: Path) -> None:
    """Write `model` into `folder`; the model that `load_linear` returns gives bit-identical probabilities."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    columns = model.vectorizer.vocabulary_
    texts = {
        "labels": list(model.labels),
        "threshold": model.threshold,
        "vocabulary": sorted(columns, key=columns.__getitem__),
    }
    (folder / TEXT_FILE).write_text(json.dumps(texts, ensure_ascii=False), "utf-8")
    weights = {
        "idf": model.vectorizer.idf_,  # (n-grams,)
        "coef": model.classifier.coef_,  # (1 or labels, n-grams)
        "intercept": model.classifier.intercept_,
    }
    save_file({name: np.ascontiguousarray(values) for name, values in weights.items()}, folder / WEIGHTS_FILE)


def load_linear(folder: Path) -> LinearModel:
    """Load the linear baseline that `save` wrote.

    Raises: InputError if `folder` contains none, or if its two files do not match.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        texts = json.loads((folder / TEXT_FILE).read_text("utf-8"))
        weights = load_file(folder / WEIGHTS_FILE)
        labels, ngrams = tuple(texts["labels"]), texts["vocabulary"]
        rows = 1 if len(labels) == 2 else len(labels)
        shapes = {"idf": (len(ngrams),), "coef": (rows, len(ngrams)), "intercept": (rows,)}
        fits = all(weights[name].shape == shape for name, shape in shapes.items())
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; {folder} is not a saved linear baseline") from None
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder}: cannot be read as a saved linear baseline: {error}") from None
    if not fits:
        raise InputError(f"{folder}: {TEXT_FILE} and {WEIGHTS_FILE} do not match; save the linear baseline again")
    vectorizer = _vectorizer(vocabulary={ngram: column for column, ngram in enumerate(ngrams)})
    vectorizer.idf_ = weights["idf"]
    classifier = _classifier()
    classifier.classes_ = np.arange(len(labels))
    classifier.coef_, classifier.intercept_ = weights["coef"], weights["intercept"]
    return LinearModel(labels, texts["threshold"], vectorizer, classifier)


def _normalized(texts: Sequence[str]) -> list[str]:
    return [normalize(text).lower() for text in texts]


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer=ANALYZER, ngram_range=NGRAMS, sublinear_tf=True, lowercase=False, **options)


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000)

"""The linear baseline: a linear classifier over TF-IDF features, reported next to every other result.

It is fitted in seconds (`toolkit.training.linear_fit`), so a model that trains for hours should beat it. It is saved as
JSON and safetensors, so loading it never unpickles.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.normalization import normalize
from toolkit.evaluation.decision_rule import DecisionRule, rule_from
from toolkit.evaluation.metrics import softmax
from toolkit.utils.errors import InputError

ANALYZERS: dict[str, dict[str, Any]] = {
    "char_wb": {"analyzer": "char_wb", "ngram_range": (2, 5)},
    "word": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"\S+"},  # keeps Bangla vowel signs in words
}
TEXT_FILE, WEIGHTS_FILE = "floor.json", "floor.safetensors"


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """TF-IDF features of normalized texts in lower case."""

    vectorizers: dict[str, Any]
    """Key of ANALYZERS -> sklearn TfidfVectorizer; their features stand side by side."""

    def matrix(self, texts: Sequence[str]) -> Any:
        """Return the features, sparse CSR float32 (texts, features)."""
        from scipy.sparse import csr_matrix, hstack

        normalized = _normalized(texts)
        parts = [vectorizer.transform(normalized) for vectorizer in self.vectorizers.values()]
        return parts[0] if len(parts) == 1 else csr_matrix(hstack(parts))


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A predictor with TF-IDF features and one linear output per label, or one for two labels."""

    labels: tuple[str, ...]
    rule: DecisionRule
    features: TextFeatures
    weights: np.ndarray
    """float32 (outputs, features)."""
    intercept: np.ndarray
    """float32 (outputs,)."""

    @property
    def threshold(self) -> float | None:
        return self.rule.threshold

    @property
    def offsets(self) -> tuple[float, ...] | None:
        return self.rule.offsets

    @property
    def parameters(self) -> int:
        return int(self.weights.size + self.intercept.size)

    def predict_logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return logits, float32 (texts, labels)."""
        if len(texts) == 0:
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        outputs = self.features.matrix(texts) @ self.weights.T + self.intercept  # (texts, outputs)
        return as_logits(outputs).astype(np.float32)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """See `toolkit.evaluation.predictor.Predictor`."""
        return softmax(self.predict_logits(texts).astype(np.float64)).astype(np.float32)


def as_logits(outputs: np.ndarray) -> np.ndarray:
    """Return logits (rows, labels) of outputs (rows, 1 or labels); one output is the log-odds of label 1 of two."""
    return np.concatenate([-outputs / 2, outputs / 2], axis=1) if outputs.shape[1] == 1 else outputs


def fit_features(texts: Sequence[str], words: bool) -> tuple[TextFeatures, Any]:
    """Return the features that occur in at least two of `texts`, and their matrix, sparse CSR float32.

    words: add n-grams of words to those of characters.
    """
    from scipy.sparse import csr_matrix, hstack

    normalized = _normalized(texts)
    vectorizers, parts = {}, []
    for name in ANALYZERS if words else ["char_wb"]:
        vectorizers[name] = _vectorizer(name, min_df=2)
        try:
            parts.append(vectorizers[name].fit_transform(normalized))
        except ValueError:  # no n-gram occurs twice
            vectorizers[name] = _vectorizer(name)
            parts.append(vectorizers[name].fit_transform(normalized))
    return TextFeatures(vectorizers), parts[0] if len(parts) == 1 else csr_matrix(hstack(parts))


def save(model: LinearModel, folder: Path) -> None:
    """Write `model` into `folder`; the model that `load_linear` returns gives bit-identical probabilities."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    vocabularies, weights = {}, {"weights": model.weights, "intercept": model.intercept}
    for name, vectorizer in model.features.vectorizers.items():
        columns = vectorizer.vocabulary_
        vocabularies[name] = sorted(columns, key=columns.__getitem__)
        weights[f"idf_{name}"] = vectorizer.idf_.astype(np.float32)  # (n-grams,)
    texts = {"labels": list(model.labels), "rule": model.rule.as_dict(), "vocabularies": vocabularies}
    (folder / TEXT_FILE).write_text(json.dumps(texts, ensure_ascii=False), "utf-8")
    save_file({name: np.ascontiguousarray(values) for name, values in weights.items()}, folder / WEIGHTS_FILE)


def load_linear(folder: Path) -> LinearModel:
    """Load the linear baseline that `save` wrote.

    Raises: InputError if `folder` contains none, or if its two files do not match.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        texts = json.loads((folder / TEXT_FILE).read_text("utf-8"))
        arrays = load_file(folder / WEIGHTS_FILE)
        labels, rule, vocabularies = tuple(texts["labels"]), rule_from(texts["rule"]), texts["vocabularies"]
        ngrams = sum(len(vocabularies[name]) for name in vocabularies)
        outputs = 1 if len(labels) == 2 else len(labels)
        shapes = {"weights": (outputs, ngrams), "intercept": (outputs,)}
        shapes |= {f"idf_{name}": (len(vocabulary),) for name, vocabulary in vocabularies.items()}
        fits = vocabularies.keys() <= ANALYZERS.keys() and all(arrays[k].shape == shape for k, shape in shapes.items())
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; {folder} is not a saved linear baseline") from None
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InputError(f"{folder}: cannot be read as a saved linear baseline: {error}") from None
    if not fits:
        raise InputError(f"{folder}: {TEXT_FILE} and {WEIGHTS_FILE} do not match; save the linear baseline again")
    vectorizers = {}
    for name, vocabulary in vocabularies.items():
        vectorizers[name] = _vectorizer(name, vocabulary={ngram: column for column, ngram in enumerate(vocabulary)})
        vectorizers[name].idf_ = arrays[f"idf_{name}"]
    return LinearModel(labels, rule, TextFeatures(vectorizers), arrays["weights"], arrays["intercept"])


def _normalized(texts: Sequence[str]) -> list[str]:
    return [normalize(text).lower() for text in texts]


def _vectorizer(name: str, **options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(**ANALYZERS[name], sublinear_tf=True, lowercase=False, dtype=np.float32, **options)

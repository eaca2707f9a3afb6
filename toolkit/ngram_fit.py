"""Fit the sparse student (`toolkit.ngram`): ridge regression of a teacher's logits on TF-IDF of hashed n-grams."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from toolkit.classifier import Classifier, like_lengths, pad
from toolkit.metrics import calculate_metrics_with_threshold_exploration, softmax
from toolkit.ngram import PAD_ID, NgramConfig, NgramNetwork, character_tokenizer, rows_of, table_rows
from toolkit.tokenizer import encode
from toolkit.training import Examples

RIDGES = (0.1, 0.3, 1.0, 3.0)
"""Weights of the penalty that are tried; validation rows choose."""
BATCH = 256


@dataclass(frozen=True)
class Features:
    """TF-IDF of texts over the rows of the table."""

    matrix: Any
    """scipy CSR float32 (texts, rows), each row of Euclidean length about 1."""
    squared_idf: np.ndarray
    """float64 (rows,), 0 for a row that no fitted text has."""


def fit_ngram(
    student: str, train: Examples, validation: Examples, labels: tuple[str, ...]
) -> tuple[Classifier, dict[str, Any]]:
    """The student that `ngram[:BITS]` names, fitted on the teacher's logits in `train`, and what was found on the way.

    The weight of the penalty is the one with the least cross-entropy on the validation rows.
    Raises: InputError for a broken name.
    """
    from sklearn.linear_model import Ridge

    assert train.teacher_logits is not None
    tokenizer = character_tokenizer(train.texts)
    rows = rows_of(student)
    features = tfidf(tokenizer, train.texts, rows)
    targets = _outputs(train.teacher_logits.astype(np.float64))  # (texts, outputs)
    best: tuple[float, NgramNetwork] | None = None
    history = []
    for epoch, ridge in enumerate(RIDGES, 1):
        solver = Ridge(alpha=ridge, solver="sparse_cg", tol=1e-4).fit(features.matrix, targets)
        network = _network(features, solver.coef_.reshape(targets.shape[1], rows), solver.intercept_)
        logits = Classifier(network, tokenizer, PAD_ID, labels).predict_logits(validation.texts, BATCH)
        probabilities = softmax(logits.astype(np.float64))
        loss = float(-np.log(probabilities[np.arange(len(logits)), validation.labels]).mean())
        found = calculate_metrics_with_threshold_exploration(validation.labels, probabilities)
        history.append({"epoch": epoch, "ridge": ridge, "val_loss": loss} | {f"val_{k}": v for k, v in found.items()})
        if best is None or loss < best[0]:
            best = loss, network
    assert best is not None
    chosen = min(history, key=lambda tried: tried["val_loss"])
    used = int((features.squared_idf > 0).sum())
    details = {"best_epoch": chosen["epoch"], "history": history, "ridge": chosen["ridge"], "table_rows_used": used}
    return Classifier(best[1], tokenizer, PAD_ID, labels), details


def tfidf(tokenizer: Tokenizer, texts: Sequence[str], rows: int) -> Features:
    """Hashed n-grams of `texts`, weighed by idf (smoothed as in scikit-learn) and divided by the norm of their text.

    The norm is that of `toolkit.ngram`: an n-gram that comes twice counts twice in it.
    """
    from scipy.sparse import csr_matrix, diags

    counts = _counts(tokenizer, texts, rows)
    seen = np.bincount(counts.indices, minlength=rows)  # texts that have the n-gram
    idf = np.where(seen > 0, np.log((1 + len(texts)) / (1 + seen)) + 1, 0.0)
    norm = np.sqrt(np.maximum(counts @ idf**2, 1.0))
    return Features(csr_matrix(diags(1 / norm) @ counts @ diags(idf), dtype=np.float32), idf**2)


def _counts(tokenizer: Tokenizer, texts: Sequence[str], rows: int) -> Any:
    """How often each row of the table is met: CSR float64 (texts, rows), without row 0."""
    from scipy.sparse import csr_matrix

    encoded = encode(tokenizer, texts)
    texts_of, rows_met = [], []
    for chosen in like_lengths(encoded, BATCH):
        met = table_rows(pad([encoded[i] for i in chosen], PAD_ID)[0], rows).numpy()  # (batch, windows)
        place, _ = filled = np.nonzero(met)
        texts_of.append(np.array(chosen)[place])
        rows_met.append(met[filled])
    where = (np.concatenate(texts_of), np.concatenate(rows_met))
    counts = csr_matrix((np.ones(len(where[0])), where), shape=(len(texts), rows))
    counts.sum_duplicates()
    return counts


def _outputs(logits: np.ndarray) -> np.ndarray:
    """What is regressed on: of two labels the difference (texts, 1), else each logit above the mean of its text."""
    return logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits - logits.mean(axis=1, keepdims=True)


def _network(features: Features, weights: np.ndarray, intercept: np.ndarray) -> NgramNetwork:
    """weights: (outputs, rows) of the TF-IDF features; intercept: (outputs,)."""
    rows = len(features.squared_idf)
    network = NgramNetwork(NgramConfig(rows, len(weights)))
    idf = np.sqrt(features.squared_idf)
    table = np.concatenate([features.squared_idf[:, None], (weights * idf).T], axis=1)
    network.table.data = torch.from_numpy(table.astype(np.float32))
    network.intercept.data = torch.from_numpy(np.asarray(intercept, dtype=np.float32).reshape(-1))
    return network.eval()

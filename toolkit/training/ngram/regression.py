"""Fit the n-gram student (`toolkit.modeling.ngram`) by ridge regression of teacher logits on hashed TF-IDF features.

As in NBSVM (Wang and Manning 2012), features are scaled by their naive Bayes log-ratio, here of the teacher's soft
labels: n-grams that distinguish the labels are penalized less. The scales are folded into the weights, so they cost
nothing at inference. The constants were chosen on validation rows with
`python -m benchmarks.studies.ngram_hyperparameters`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from tokenizers import Tokenizer

from toolkit.evaluation.metrics import softmax
from toolkit.modeling.classifier import like_lengths, pad
from toolkit.modeling.ngram import PAD_ID, NgramConfig, NgramNetwork, table_rows, word_rows_of
from toolkit.modeling.tokenizer import encode_in_steps
from toolkit.training.losses import UNLABELED
from toolkit.training.nbsvm import STEP, in_threads

RIDGES = (0.3, 1.0, 3.0, 10.0)
"""Candidate weights of the ridge penalty; the one with the lowest validation loss is selected."""
RATIO_POWER, RATIO_FLOOR = 1.5, 0.1
"""The scale of an n-gram is its absolute log-ratio to this power, plus this minimum."""
LABEL_LOGIT = 4.0
"""Difference between the logit of the label and the other logits in the regression targets."""
BATCH = 256


@dataclass(frozen=True, eq=False)
class TableRows:
    """What the training texts say about the rows of the table."""

    squared_idf: np.ndarray
    """float64 (rows,), 0 for rows that do not occur in the texts."""
    factors: np.ndarray
    """float64 (rows,), by which the numbers of a column are larger than in the network: 1, or the same for all words.

    There are fewer words than windows of characters. With their factor, both have the same norm on average, as in the
    linear baseline."""
    word_rows: int
    """0 for a table without words; see `NgramConfig`."""


@dataclass(frozen=True, eq=False)
class Features:
    """TF-IDF features of texts over the rows of the table."""

    matrix: Any
    """scipy CSR float32 (texts, rows); the Euclidean norm of each row is about 1, and larger with words."""
    rows: TableRows


def wanted_outputs(
    teacher_logits: np.ndarray, labels: np.ndarray, alpha: float, label_logit: float = LABEL_LOGIT
) -> np.ndarray:
    """Return the regression targets, float64 (texts, outputs): alpha · teacher logits + (1 - alpha) · label logits.

    Unlabeled texts use the teacher logits only. For two labels, there is one output, the difference of the logits;
    otherwise the logits are centered for each text.
    """
    known = labels != UNLABELED
    teacher = teacher_logits.astype(np.float64)
    centered = teacher - teacher.mean(axis=1, keepdims=True)  # (texts, labels)
    label_logits = label_logit * (np.eye(centered.shape[1])[labels[known]] - 1 / centered.shape[1])
    centered[known] = alpha * centered[known] + (1 - alpha) * label_logits
    return centered[:, 1:] - centered[:, :1] if centered.shape[1] == 2 else centered


def ratio_scales(matrix: Any, wanted: np.ndarray, power: float = RATIO_POWER) -> np.ndarray:
    """Return the scale of each n-gram, float32 (outputs, rows): |naive Bayes log-ratio|^power + RATIO_FLOOR.

    The log-ratio compares the n-gram's share of the soft counts of a label with its share of those of the other labels.

    matrix: sparse features (texts, rows), used as binary. wanted: target logits (texts, outputs).
    """
    present = matrix.astype(bool).astype(np.float64)
    probabilities = expit(wanted) if wanted.shape[1] == 1 else softmax(wanted)  # (texts, outputs)
    positive, negative = (1 + (present.T @ soft).T for soft in (probabilities, 1 - probabilities))  # (outputs, rows)
    ratio = np.log(positive / positive.sum(axis=1, keepdims=True)) - np.log(
        negative / negative.sum(axis=1, keepdims=True)
    )
    return (np.abs(ratio) ** power + RATIO_FLOOR).astype(np.float32)


def regress(matrix: Any, wanted: np.ndarray, scales: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit one ridge regression per output; return weights (outputs, rows) and intercepts (outputs,)."""
    from scipy.sparse import diags
    from sklearn.linear_model import Ridge

    def fit(output: int) -> tuple[np.ndarray, float]:
        scaled = matrix @ diags(scales[output])
        solver = Ridge(alpha=ridge, solver="sparse_cg", tol=1e-4).fit(scaled, wanted[:, output])
        return solver.coef_ * scales[output], float(solver.intercept_)

    fitted = in_threads(fit, range(len(scales)))
    return np.stack([weights for weights, _ in fitted]), np.array([intercept for _, intercept in fitted])


def tfidf(tokenizer: Tokenizer, texts: Sequence[str], rows: int, words: bool = False) -> Features:
    """Return TF-IDF features of the hashed n-grams of `texts`, with smoothed idf as in scikit-learn.

    Each text is divided by the norm used in `toolkit.modeling.ngram`: an n-gram that occurs twice is counted twice.
    N-grams of a single text are left out, as in the linear baseline, unless there are no others.
    words: use a part of the rows for words and pairs of words.
    """
    word_rows = word_rows_of(rows) if words else 0
    counts = _counts(tokenizer, texts, rows, word_rows)
    frequency = np.bincount(counts.indices, minlength=rows)  # number of texts with the n-gram, (rows,)
    least = 2 if frequency.max(initial=0) > 1 else 1
    idf = np.where(frequency >= least, np.log((1 + len(texts)) / (1 + frequency)) + 1, 0.0)
    factors = np.ones(rows)
    if words:
        sums = np.bincount(counts.indices, counts.data, minlength=rows) * idf**2
        of_words = sums[rows - word_rows :].sum()
        factors[rows - word_rows :] = np.sqrt((sums.sum() - of_words) / of_words) if of_words > 0 else 1.0
    return Features(_weighted(counts, idf, factors), TableRows(idf**2, factors, word_rows))


def features_of(tokenizer: Tokenizer, texts: Sequence[str], rows: TableRows) -> Any:
    """Return the features of texts, with idf and factors of other texts: CSR float32 (texts, rows of the table)."""
    counts = _counts(tokenizer, texts, len(rows.squared_idf), rows.word_rows)
    return _weighted(counts, np.sqrt(rows.squared_idf), rows.factors)


def _weighted(counts: Any, idf: np.ndarray, factors: np.ndarray) -> Any:
    """Weight the n-grams by idf and factors (rows,) and divide each text by its norm, in place."""
    norm, weights = np.sqrt(np.maximum(counts @ idf**2, 1.0)), idf * factors
    # In place, since a copy of the matrix has hundreds of numbers a text.
    texts_of = np.repeat(np.arange(counts.shape[0], dtype=np.int32), np.diff(counts.indptr))
    for start in range(0, counts.nnz, STEP):
        part = slice(start, start + STEP)
        counts.data[part] = counts.data[part] * weights[counts.indices[part]] / norm[texts_of[part]]
    return counts


def _counts(tokenizer: Tokenizer, texts: Sequence[str], rows: int, word_rows: int) -> Any:
    """Count the n-grams of each table row, without row 0: CSR float32 (texts, rows), made of a part for STEP texts."""
    from scipy.sparse import csr_matrix

    parts = []
    for encoded in encode_in_steps(tokenizer, texts):
        text_indices, row_indices = [], []
        for batch in like_lengths(encoded, BATCH):
            ids = pad([encoded[i] for i in batch], PAD_ID)[0]
            windows = table_rows(ids, rows, word_rows).numpy()  # (batch, windows)
            in_batch, _ = ngrams = np.nonzero(windows)
            text_indices.append(np.array(batch)[in_batch])
            row_indices.append(windows[ngrams])
        indices = (np.concatenate(text_indices), np.concatenate(row_indices))
        ones = np.ones(len(indices[0]), dtype=np.float32)
        parts.append(csr_matrix((ones, indices), shape=(len(encoded), rows)))  # sums duplicates
    ends = np.concatenate([[0], np.cumsum([count for part in parts for count in np.diff(part.indptr)])])
    values, columns = np.empty(ends[-1], np.float32), np.empty(ends[-1], np.int32)
    start = 0
    for place, part in enumerate(parts):
        values[start : start + part.nnz], columns[start : start + part.nnz] = part.data, part.indices
        start += part.nnz
        parts[place] = None  # at no time are there two copies of all numbers
    return csr_matrix((values, columns, ends), shape=(len(texts), rows), copy=False)


def only_columns(matrix: Any, used: np.ndarray) -> Any:
    """Return CSR `matrix` with the columns `used`, in increasing order; `matrix` is overwritten.

    Numbers in other columns must be 0.
    """
    from scipy.sparse import csr_matrix

    matrix.eliminate_zeros()
    place = np.zeros(matrix.shape[1], dtype=matrix.indices.dtype)
    place[used] = np.arange(len(used))
    for start in range(0, matrix.nnz, STEP):
        part = slice(start, start + STEP)
        matrix.indices[part] = place[matrix.indices[part]]
    return csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], len(used)), copy=False)


def network_of(rows: TableRows, weights: np.ndarray, intercept: np.ndarray) -> NgramNetwork:
    """Build the network that computes the logits of the regression.

    weights: (outputs, rows) of the features; intercept: (outputs,).
    """
    network = NgramNetwork(NgramConfig(len(rows.squared_idf), len(weights), rows.word_rows))
    scaled = weights * np.sqrt(rows.squared_idf) * rows.factors
    table = np.concatenate([rows.squared_idf[:, None], scaled.T], axis=1)
    network.table.data = torch.from_numpy(table.astype(np.float32))
    network.intercept.data = torch.from_numpy(np.asarray(intercept, dtype=np.float32).reshape(-1))
    return network.eval()

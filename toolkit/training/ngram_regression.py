"""Fit the sparse student (`toolkit.ngram`): ridge regression of a teacher's logits on TF-IDF of hashed n-grams.

What each n-gram may weigh is set by how much it tells the labels apart, as in NBSVM (Wang and Manning 2012): the
penalty on its weight falls with its naive Bayes log-ratio, here of the teacher's soft labels. That costs nothing at
run time. The constants were chosen on validation rows: `python -m benchmarks.ngram_choices`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from tokenizers import Tokenizer

from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration, cross_entropy, softmax
from toolkit.modeling.classifier import Classifier, like_lengths, pad
from toolkit.modeling.ngram import PAD_ID, NgramConfig, NgramNetwork, character_tokenizer, rows_of, table_rows
from toolkit.modeling.tokenizer import encode
from toolkit.training.dataset import Examples
from toolkit.training.losses import UNLABELED

RIDGES = (0.3, 1.0, 3.0, 10.0)
"""Weights of the penalty that are tried; validation rows choose."""
RATIO_POWER, RATIO_FLOOR = 1.5, 0.1
"""The scale of an n-gram is its absolute log-ratio to this power, plus the floor."""
LABEL_LOGIT = 4.0
"""How far above the others a label's logit stands in what is regressed on, where the labels have a say."""
BATCH = 256


@dataclass(frozen=True)
class Features:
    """TF-IDF of texts over the rows of the table."""

    matrix: Any
    """scipy CSR float32 (texts, rows), each row of Euclidean length about 1."""
    squared_idf: np.ndarray
    """float64 (rows,), 0 for a row that no fitted text has."""


def fit_ngram(
    student: str,
    train: Examples,
    validation: Examples,
    labels: tuple[str, ...],
    alpha: float,
    watch: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    """The student that `ngram[:BITS]` names, fitted on the teacher's logits in `train`, and what was found on the way.

    alpha: weight of the teacher's logits; the rest goes to those of the label, where a text has one.
    watch: called as by `toolkit.training.fit`; what counts as an epoch is one weight of the penalty that is tried.
    The one with the least cross-entropy on the validation rows is taken.
    Raises: InputError for a broken name.
    """
    assert train.teacher_logits is not None
    tokenizer = character_tokenizer(train.texts)
    rows = rows_of(student)
    features = tfidf(tokenizer, train.texts, rows)
    wanted = wanted_outputs(train.teacher_logits, train.labels, alpha)
    scales = ratio_scales(features.matrix, wanted)
    tried: list[Classifier] = []
    history: list[dict[str, float]] = []
    for epoch, ridge in enumerate(RIDGES, 1):
        network = network_of(features, *regress(features.matrix, wanted, scales, ridge))
        tried.append(Classifier(network, tokenizer, PAD_ID, labels))
        history.append({"epoch": epoch, "ridge": ridge, **judged(tried[-1], validation)})
        if watch is not None:
            watch(epoch, history[-1])
    best = int(np.argmin([each["val_loss"] for each in history]))
    used = int((features.squared_idf > 0).sum())
    details = {"best_epoch": best + 1, "history": history, "ridge": RIDGES[best], "table_rows_used": used}
    return tried[best], details


def judged(student: Classifier, validation: Examples) -> dict[str, float]:
    """Cross-entropy and metrics of `student` on validation rows, under the names that `toolkit.training.fit` gives."""
    probabilities = softmax(student.predict_logits(validation.texts, BATCH).astype(np.float64))
    found = calculate_metrics_with_threshold_exploration(validation.labels, probabilities)
    loss = cross_entropy(validation.labels, probabilities)
    return {"val_loss": loss} | {f"val_{name}": value for name, value in found.items()}


def wanted_outputs(
    teacher_logits: np.ndarray, labels: np.ndarray, alpha: float, label_logit: float = LABEL_LOGIT
) -> np.ndarray:
    """What is regressed on, float64 (texts, outputs): the teacher's logits, with 1 - alpha of the label's own where a
    text has one. Of two labels that is one output, the difference; else each logit above the mean of its text.
    """
    known = labels != UNLABELED
    teacher = teacher_logits.astype(np.float64)
    centerd = teacher - teacher.mean(axis=1, keepdims=True)
    own = label_logit * (np.eye(centerd.shape[1])[labels[known]] - 1 / centerd.shape[1])
    centerd[known] = alpha * centerd[known] + (1 - alpha) * own
    return centerd[:, 1:] - centerd[:, :1] if centerd.shape[1] == 2 else centerd


def ratio_scales(matrix: Any, wanted: np.ndarray, power: float = RATIO_POWER) -> np.ndarray:
    """How much each n-gram may weigh: float32 (outputs, rows), |naive Bayes log-ratio|^power + RATIO_FLOOR.

    matrix: sparse (texts, rows), of which only presence counts. wanted: logits (texts, outputs). An n-gram's
    log-ratio compares its share of the soft counts of a label with its share of those of the rest.
    """
    present = matrix.astype(bool).astype(np.float64)
    probabilities = expit(wanted) if wanted.shape[1] == 1 else softmax(wanted)  # (texts, outputs)
    for_it, against_it = (1 + (present.T @ soft).T for soft in (probabilities, 1 - probabilities))  # (outputs, rows)
    ratio = np.log(for_it / for_it.sum(axis=1, keepdims=True)) - np.log(
        against_it / against_it.sum(axis=1, keepdims=True)
    )
    return (np.abs(ratio) ** power + RATIO_FLOOR).astype(np.float32)


def regress(matrix: Any, wanted: np.ndarray, scales: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (outputs, rows) and intercepts (outputs,) of one ridge regression an output."""
    from scipy.sparse import diags
    from sklearn.linear_model import Ridge

    weights, intercepts = [], []
    for output, scale in enumerate(scales):
        solver = Ridge(alpha=ridge, solver="sparse_cg", tol=1e-4).fit(matrix @ diags(scale), wanted[:, output])
        weights.append(solver.coef_ * scale)
        intercepts.append(solver.intercept_)
    return np.stack(weights), np.array(intercepts)


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


def network_of(features: Features, weights: np.ndarray, intercept: np.ndarray) -> NgramNetwork:
    """The network whose logits are those of the regression.

    weights: (outputs, rows) of the TF-IDF features; intercept: (outputs,).
    """
    rows = len(features.squared_idf)
    network = NgramNetwork(NgramConfig(rows, len(weights)))
    idf = np.sqrt(features.squared_idf)
    table = np.concatenate([features.squared_idf[:, None], (weights * idf).T], axis=1)
    network.table.data = torch.from_numpy(table.astype(np.float32))
    network.intercept.data = torch.from_numpy(np.asarray(intercept, dtype=np.float32).reshape(-1))
    return network.eval()

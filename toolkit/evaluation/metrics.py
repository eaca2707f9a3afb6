"""The metrics that every stage reports."""

from collections.abc import Sequence

import numpy as np

from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.label_keys import label_keys

THRESHOLDS = tuple(round(0.3 + 0.05 * i, 2) for i in range(7))
"""Grid for the threshold search: 0.30, 0.35 … 0.60."""


def calculate_metrics_with_threshold_exploration(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    threshold: float | None = None,
    label_names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Compute the metrics of predicted probabilities.

    y_true: int (rows,), index of the label.
    y_pred: float (rows,), probability of label 1; or (rows, labels), rows summing to 1.
    threshold: of the probability of label 1, for two labels. None selects the value of THRESHOLDS
      with the best macro-F1 (of equal ones, the nearest to 0.5): use that on validation rows only,
      and pass the stored threshold for all other rows.
    label_names: adds `f1_{name}`, `precision_{name}` and `recall_{name}` for each label, with names of `label_keys`.

    Returns, for two labels: accuracy, macro_f1, f1, f1_negative, precision, recall,
    precision_negative, recall_negative, roc_auc, best_threshold and macro_f1_th_0.3 …
    macro_f1_th_0.6. For more labels, of the label with the highest probability: accuracy, macro_f1,
    precision and recall (macro), and roc_auc (one against the rest, macro). roc_auc is NaN if a
    label has no row.
    """
    probabilities = _as_columns(np.asarray(y_pred, dtype=np.float64))  # (rows, labels)
    rule = DecisionRule(threshold)
    if probabilities.shape[1] == 2 and threshold is None:
        found = {t: macro_f1(np.asarray(y_true), DecisionRule(t).predict(probabilities), 2) for t in THRESHOLDS}
        rule = DecisionRule(max(THRESHOLDS, key=lambda t: (found[t], -abs(t - 0.5))))
    return metrics_with_rule(y_true, probabilities, rule, label_names)


def metrics_with_rule(
    y_true: np.ndarray, probabilities: np.ndarray, rule: DecisionRule, label_names: Sequence[str] | None = None
) -> dict[str, float]:
    """Compute the metrics of `calculate_metrics_with_threshold_exploration` for labels predicted by `rule`.

    y_true: int (rows,). probabilities: float (rows, labels). Of a rule without a threshold, `best_threshold` is 0.5.
    """
    from sklearn.metrics import precision_recall_fscore_support

    y_true, probabilities = np.asarray(y_true), np.asarray(probabilities, dtype=np.float64)
    labels = probabilities.shape[1]
    predicted = rule.predict(probabilities)
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, predicted, labels=range(labels), average=None, zero_division=0
    )
    metrics = {"accuracy": float((predicted == y_true).mean()), "macro_f1": float(f1.mean())}
    if labels == 2:
        metrics |= {"f1": f1[1], "f1_negative": f1[0], "precision": precision[1], "recall": recall[1]}
        metrics |= {"precision_negative": precision[0], "recall_negative": recall[0]}
    else:
        metrics |= {"precision": precision.mean(), "recall": recall.mean()}
    metrics["roc_auc"] = _roc_auc(y_true, probabilities)
    if labels == 2:
        metrics["best_threshold"] = 0.5 if rule.threshold is None else rule.threshold
        for t in THRESHOLDS:
            metrics[f"macro_f1_th_{t:g}"] = macro_f1(y_true, DecisionRule(t).predict(probabilities), 2)
    for i, name in enumerate(label_keys(label_names or ())):
        metrics |= {f"f1_{name}": f1[i], f"precision_{name}": precision[i], f"recall_{name}": recall[i]}
    return {name: float(value) for name, value in metrics.items()}


def macro_f1(y_true: np.ndarray, predicted: np.ndarray, labels: int) -> float:
    """Return the mean F1 over all labels; a label that occurs in neither array counts as 0."""
    counts = np.bincount(y_true * labels + predicted, minlength=labels * labels).reshape(labels, labels)
    return float(f1_scores(np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)).mean())


def f1_scores(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Return F1 for numbers of right predictions, of predictions and of rows of a label, all of any one shape.

    Without predictions and rows, F1 is 0.
    """
    total = np.asarray(predicted + actual, dtype=np.float64)
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)


def cross_entropy(y_true: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean negative log-probability of the labels (rows,) under `probabilities` (rows, labels)."""
    return float(-np.log(probabilities[np.arange(len(y_true)), y_true]).mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities (rows, labels) of logits (rows, labels)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _as_columns(probabilities: np.ndarray) -> np.ndarray:
    return np.stack([1 - probabilities, probabilities], axis=1) if probabilities.ndim == 1 else probabilities


def _roc_auc(y_true: np.ndarray, probabilities: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    labels = probabilities.shape[1]
    if len(np.unique(y_true)) < labels:
        return float("nan")
    if labels == 2:
        return float(roc_auc_score(y_true, probabilities[:, 1]))
    return float(roc_auc_score(y_true, probabilities, multi_class="ovr", average="macro", labels=range(labels)))

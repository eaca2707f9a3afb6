import numpy as np
import pytest
from sklearn import metrics as sk

from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import (
    THRESHOLDS,
    calculate_metrics_with_threshold_exploration,
    macro_f1,
    softmax,
)


def random_case(seed: int, rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    y_true = dice.integers(0, 2, rows)
    return y_true, np.clip(0.25 + 0.4 * y_true + dice.normal(0, 0.25, rows), 0, 1)


def test_a_case_worked_by_hand() -> None:
    """At 0.5: label 1 has 2 hits, 1 miss, 1 false alarm; label 0 has 1 hit, 1 miss, 1 false alarm."""
    got = calculate_metrics_with_threshold_exploration(
        np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.8, 0.2, 0.7, 0.1]), 0.5, ("no", "yes")
    )
    expected = {
        "accuracy": 3 / 5,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": 2 / 3,
        "precision_negative": 1 / 2,
        "recall_negative": 1 / 2,
        "f1_negative": 1 / 2,
        "macro_f1": 7 / 12,
        "f1_no": 1 / 2,
        "f1_yes": 2 / 3,
        "roc_auc": 5 / 6,  # of 6 pairs only (0.2, 0.7) is in the wrong order
        "best_threshold": 0.5,
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.6, 0.123])
def test_two_labels_agree_with_sklearn(seed: int, threshold: float) -> None:
    y_true, p = random_case(seed)
    predicted = (p >= threshold).astype(int)
    got = calculate_metrics_with_threshold_exploration(y_true, p, threshold)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y_true, predicted))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(y_true, predicted, average="macro"))
    assert got["f1"] == pytest.approx(sk.f1_score(y_true, predicted))
    assert got["f1_negative"] == pytest.approx(sk.f1_score(y_true, predicted, pos_label=0))
    assert got["precision"] == pytest.approx(sk.precision_score(y_true, predicted))
    assert got["recall_negative"] == pytest.approx(sk.recall_score(y_true, predicted, pos_label=0))
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y_true, p))
    assert got["best_threshold"] == threshold


@pytest.mark.parametrize("seed", range(3))
def test_more_labels_agree_with_sklearn(seed: int) -> None:
    dice = np.random.default_rng(seed)
    y_true = dice.integers(0, 4, 300)
    probabilities = softmax(dice.normal(size=(300, 4)) + 1.5 * np.eye(4)[y_true])
    predicted = probabilities.argmax(axis=1)
    got = calculate_metrics_with_threshold_exploration(y_true, probabilities, label_names=list("abcd"))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(y_true, predicted, average="macro"))
    assert got["precision"] == pytest.approx(sk.precision_score(y_true, predicted, average="macro"))
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y_true, probabilities, multi_class="ovr"))
    assert got["f1_c"] == pytest.approx(sk.f1_score(y_true, predicted, average=None)[2])
    assert "best_threshold" not in got


@pytest.mark.parametrize(
    ("y_true", "predicted", "labels"),
    [
        ([0, 1, 1, 0], [0, 1, 0, 0], 2),
        ([0, 0, 0], [0, 0, 0], 2),
        ([0, 0, 0], [1, 1, 1], 2),
        ([1, 1], [1, 1], 2),
        ([0, 2, 2], [2, 2, 0], 4),
        ([3], [0], 4),
        ([0, 1, 2], [0, 1, 2], 3),
    ],
)
def test_macro_f1_counts_a_missing_label_as_sklearn_does(y_true: list[int], predicted: list[int], labels: int) -> None:
    expected = sk.f1_score(y_true, predicted, labels=range(labels), average="macro", zero_division=0)
    assert macro_f1(np.array(y_true), np.array(predicted), labels) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_is_the_best_of_those_explored(seed: int) -> None:
    y_true, p = random_case(seed)
    got = calculate_metrics_with_threshold_exploration(y_true, p)
    scores = {t: sk.f1_score(y_true, p >= t, average="macro") for t in THRESHOLDS}
    assert {t: got[f"macro_f1_th_{t:g}"] for t in THRESHOLDS} == pytest.approx(scores)
    assert scores[got["best_threshold"]] == pytest.approx(max(scores.values()))
    assert got["macro_f1"] == pytest.approx(max(scores.values()))


def test_of_equal_thresholds_the_nearest_to_a_half_is_selected() -> None:
    got = calculate_metrics_with_threshold_exploration(np.array([0, 1]), np.array([0.01, 0.99]))
    assert got["best_threshold"] == 0.5


def test_a_given_threshold_is_never_replaced_by_a_better_one() -> None:
    got = calculate_metrics_with_threshold_exploration(np.array([0, 0, 1]), np.array([0.4, 0.4, 0.9]), threshold=0.3)
    assert got["best_threshold"] == 0.3
    assert got["macro_f1"] == got["macro_f1_th_0.3"] < got["macro_f1_th_0.5"] == 1.0


def test_one_column_and_two_columns_give_the_same_metrics() -> None:
    y_true, p = random_case(0)
    two = calculate_metrics_with_threshold_exploration(y_true, np.stack([1 - p, p], axis=1))
    assert calculate_metrics_with_threshold_exploration(y_true, p) == two


@pytest.mark.parametrize("labels", [2, 3])
def test_roc_auc_is_nan_if_a_label_has_no_row(labels: int) -> None:
    probabilities = np.full((3, labels), 1 / labels)
    assert np.isnan(calculate_metrics_with_threshold_exploration(np.zeros(3, dtype=int), probabilities)["roc_auc"])


def test_a_probability_equal_to_the_threshold_is_label_one() -> None:
    probabilities = np.array([[0.5, 0.5], [0.51, 0.49]])
    assert DecisionRule(0.5).predict(probabilities).tolist() == [1, 0]
    assert DecisionRule(0.9).predict(np.array([[0.2, 0.3, 0.5]])).tolist() == [2]


def test_large_logits_do_not_overflow() -> None:
    got = softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]]))
    assert got.tolist() == [[1.0, 0.0], [0.5, 0.5]]

import numpy as np
import pytest

from toolkit.evaluation.label_order import better_order


def noisy(truth: np.ndarray, share_right: float, labels: int) -> np.ndarray:
    """Predictions that are right on this share of the rows."""
    random = np.random.default_rng(1)
    return np.where(random.random(len(truth)) < share_right, truth, random.integers(labels, size=len(truth)))


@pytest.mark.parametrize("order", [(1, 0), (1, 2, 0), (0, 2, 1), (3, 1, 2, 0, 4)])
def test_outputs_in_another_order_are_found(order: tuple[int, ...]) -> None:
    labels = len(order)
    truth = np.random.default_rng(0).integers(labels, size=200)
    outputs = np.argsort(order)[noisy(truth, 0.7, labels)]  # output i means label order[i]
    assert better_order(truth, outputs, labels) == order
    assert better_order(truth, np.array(order)[outputs], labels) is None


@pytest.mark.parametrize("labels", [2, 3, 8])
def test_a_constant_or_random_model_has_no_other_order(labels: int) -> None:
    random = np.random.default_rng(3)
    truth = np.where(random.random(300) < 0.8, 0, random.integers(labels, size=300))  # label 0 has most rows
    assert better_order(truth, np.full(300, labels - 1), labels) is None
    assert better_order(truth, random.integers(labels, size=300), labels) is None


def test_a_weak_model_on_rare_labels_is_not_taken_for_one_in_another_order() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    predicted = np.array([0] * 38 + [1] * 52 + [0] * 2 + [1] * 8)  # less accurate than its opposite
    assert better_order(truth, predicted, 2) is None


def test_too_few_rows_show_no_other_order() -> None:
    assert better_order(np.array([0, 1, 0, 1]), np.array([1, 0, 1, 1]), 2) is None

"""Scaled logits: calibrated, with the same labels, and only where it helps; and the calibration error itself."""

import numpy as np
import pytest

from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import cross_entropy, softmax
from toolkit.evaluation.reliability.calibration import calibration_error
from toolkit.evaluation.reliability.scaling import FEWEST_ROWS, Scaling, choose_scaling


def calibrated(rows: int, labels: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the probabilities of the logits."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(rows, labels))
    return (logits + random.gumbel(size=logits.shape)).argmax(axis=1), logits


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("factor", [0.3, 2.5])
def test_the_temperature_of_overconfident_and_timid_logits_is_found(labels: int, factor: float) -> None:
    y, logits = calibrated(4000, labels)
    found = choose_scaling(y, factor * logits)
    assert found.scaling.scale == pytest.approx(1 / factor, rel=0.1)
    assert found.loss_after < found.loss_before
    assert cross_entropy(y, softmax(found.scaling.apply(factor * logits))) == pytest.approx(found.loss_after, abs=0.01)


def test_a_shift_is_found_for_two_labels() -> None:
    y, logits = calibrated(4000)
    found = choose_scaling(y, logits + np.array([1.0, 0.0]))
    assert (found.method, found.scaling.shift) == ("Platt", pytest.approx(1.0, abs=0.2))


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_fitted_that_does_not_lower_the_loss(seed: int) -> None:
    y, logits = calibrated(200, 3, seed)
    found = choose_scaling(y, logits)
    assert found.loss_after <= found.loss_before
    assert (found.method == "none") == (found.scaling == Scaling())
    few = slice(0, FEWEST_ROWS - 1)
    assert choose_scaling(y[few], 5 * logits[few]).method == "none"


def test_logits_that_are_calibrated_are_mostly_left_alone() -> None:
    methods = [choose_scaling(*calibrated(200, 3, seed)).method for seed in range(20)]
    assert methods.count("none") >= 10


RULES_2 = (DecisionRule(), DecisionRule(0.5), DecisionRule(0.13), DecisionRule(0.97), DecisionRule(None, (0.4, -0.2)))


@pytest.mark.parametrize("rule", RULES_2)
@pytest.mark.parametrize("scaling", [Scaling(0.2), Scaling(3.0), Scaling(0.7, 1.3), Scaling(1.0, -2.0)])
def test_no_label_of_two_changes(rule: DecisionRule, scaling: Scaling) -> None:
    _, logits = calibrated(2000)
    expected = rule.predict(softmax(logits))
    moved = scaling.moved(rule, 2)
    assert (moved.predict(softmax(scaling.apply(logits))) == expected).all()
    assert np.allclose(scaling.inverse.apply(scaling.apply(logits)), logits)
    assert (scaling.inverse.moved(moved, 2).predict(softmax(logits)) == expected).all()


@pytest.mark.parametrize("rule", [DecisionRule(), DecisionRule(None, (0.5, -1.0, 0.0, 0.3))])
@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_no_label_of_many_changes(rule: DecisionRule, scale: float) -> None:
    _, logits = calibrated(2000, 4)
    scaling = Scaling(scale)
    assert (scaling.moved(rule, 4).predict(softmax(scaling.apply(logits))) == rule.predict(softmax(logits))).all()


def test_the_error_is_that_of_bins_with_equally_many_rows() -> None:
    random = np.random.default_rng(3)
    confidence = random.random(300)
    right = random.random(300) < confidence**2
    order = np.argsort(confidence)
    expected = sum(
        20 * abs(confidence[order[i : i + 20]].mean() - right[order[i : i + 20]].mean()) for i in range(0, 300, 20)
    )
    found = calibration_error(confidence, right)
    assert found.ece == pytest.approx(expected / 300)
    assert [count for *_, count in found.bins] == [20] * 15
    assert 0 < found.interval[0] < found.ece < found.interval[1]
    assert found.by_chance < found.ece


def test_the_interval_of_a_calibrated_model_starts_at_zero() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(400)
    found = calibration_error(confidence, random.random(400) < confidence)
    assert found.interval[0] == 0.0
    assert found.ece == pytest.approx(found.by_chance, rel=0.6)


def test_a_handful_of_rows_is_one_bin() -> None:
    found = calibration_error(np.array([0.5, 0.9, 0.7]), np.array([True, True, False]))
    assert found.ece == pytest.approx(abs(0.7 - 2 / 3))
    assert len(found.bins) == 1

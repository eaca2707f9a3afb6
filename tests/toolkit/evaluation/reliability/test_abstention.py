"""Thresholds that keep a risk: on the population, with the confidence that was asked for."""

import numpy as np
import pytest
from scipy.stats import binom

from toolkit.evaluation.reliability.abstention import choose_threshold, fewest_rows, risk_curve


def answered(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and answers that are right as often as the scores say."""
    random = np.random.default_rng(seed)
    scores = 0.5 + 0.5 * random.random(rows)
    return scores, random.random(rows) < scores


@pytest.mark.parametrize(("risk", "confidence"), [(0.15, 0.9), (0.2, 0.8)])
def test_the_risk_of_the_population_is_kept_with_the_wanted_confidence(risk: float, confidence: float) -> None:
    found = [choose_threshold(*answered(400, seed), risk, confidence) for seed in range(300)]
    kept = [each for each in found if each is not None]
    assert len(kept) > 200
    true_risks = [
        (1 - max(0.5, each.threshold)) / 2 for each in kept
    ]  # scores above a threshold t: mean 1 - (1 + t) / 2
    assert sum(value > risk for value in true_risks) <= (1 - confidence) * len(found)


def test_the_lowest_accepted_threshold_is_taken_and_is_accepted_by_the_exact_test() -> None:
    scores, right = answered(500, 1)
    found = choose_threshold(scores, right, 0.12, 0.9)
    assert found is not None
    above = scores >= found.threshold
    assert (above.sum(), (~right[above]).sum()) == (found.answered, found.errors)
    assert binom.cdf(found.errors, found.answered, 0.12) <= 0.1 / 3
    assert found.errors / found.answered < found.bound <= 0.12


def test_what_cannot_be_shown_is_none() -> None:
    scores, right = answered(500, 2)
    assert choose_threshold(scores, right, 0.001, 0.95) is None  # would need thousands of rows without an error
    assert choose_threshold(scores, np.zeros(500, dtype=bool), 0.3, 0.9) is None
    least = fewest_rows(0.05, 0.95)
    sure = np.linspace(0.9, 1, least)
    assert choose_threshold(sure[1:], np.ones(least - 1, dtype=bool), 0.05, 0.95) is None
    assert choose_threshold(sure, np.ones(least, dtype=bool), 0.05, 0.95) is not None


def test_a_classifier_that_is_good_enough_answers_everything() -> None:
    scores, _ = answered(500, 3)
    found = choose_threshold(scores, np.ones(500, dtype=bool), 0.05, 0.95)
    assert found is not None and (found.threshold, found.answered) == (0.0, 500)


def test_scores_that_tell_nothing_do_not_hinder_a_classifier_that_keeps_the_risk() -> None:
    random = np.random.default_rng(0)
    found = choose_threshold(random.random(300), random.random(300) < 0.87, 0.2, 0.95)  # 10 of 75 would show nothing
    assert found is not None and found.answered == 300


def test_equal_scores_are_answered_together_or_not_at_all() -> None:
    scores = np.repeat([0.9, 0.6], [150, 150])
    right = np.concatenate([np.ones(150, dtype=bool), np.arange(150) % 3 > 0])
    found = choose_threshold(scores, right, 0.1, 0.9)
    assert found is not None and (found.answered, found.threshold) == (150, pytest.approx(0.75))


def test_the_curve_ends_with_all_answers() -> None:
    scores, right = answered(250, 4)
    curve = risk_curve(scores, right)
    assert curve[-1] == (1.0, pytest.approx((~right).mean()))
    assert [coverage for coverage, _ in curve] == sorted(coverage for coverage, _ in curve)

import json
from math import comb

import numpy as np
import pytest
from sklearn.metrics import f1_score

from toolkit.evaluation.significance import MARGIN, RESAMPLES, Comparison, compare, rows_to_decide


def labeled(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, rows)


def flipped(y: np.ndarray, places: range) -> np.ndarray:
    changed = y.copy()
    changed[list(places)] = 1 - changed[list(places)]
    return changed


def exact_p(only_a: int, only_b: int) -> float:
    """Two-sided: the probability of all outcomes of n fair coins that are at most as likely as this one."""
    n = only_a + only_b
    seen = comb(n, only_a)
    return sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= seen) / 2**n


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (1, 1), (5, 0), (10, 3), (3, 10), (8, 8), (20, 9)])
def test_mcnemar_p_is_exact(only_a: int, only_b: int) -> None:
    y = labeled(100)
    a = flipped(y, range(only_a, only_a + only_b))  # A is wrong where only B is right
    b = flipped(y, range(only_a))
    found = compare(y, a, b, 2)
    assert (found.only_a_right, found.only_b_right) == (only_a, only_b)
    assert found.mcnemar_p == pytest.approx(exact_p(only_a, only_b))
    assert found.agreement == pytest.approx(1 - (only_a + only_b) / 100)


def test_rows_on_which_both_are_wrong_do_not_count() -> None:
    y = labeled(100)
    both_wrong = flipped(y, range(30))
    found = compare(y, both_wrong, both_wrong, 2)
    assert (found.only_a_right, found.only_b_right, found.mcnemar_p, found.agreement) == (0, 0, 1.0, 1.0)


def test_different_wrong_labels_count_as_disagreement_only() -> None:
    y = np.zeros(10, dtype=np.int64)
    found = compare(y, np.full(10, 1), np.full(10, 2), 3)
    assert (found.only_a_right, found.only_b_right, found.agreement) == (0, 0, 0.0)


@pytest.mark.parametrize("labels", [2, 4])
def test_the_difference_is_that_of_sklearn(labels: int) -> None:
    dice = np.random.default_rng(1)
    y, a, b = dice.integers(0, labels, (3, 200))
    expected = f1_score(y, b, average="macro") - f1_score(y, a, average="macro")
    assert compare(y, a, b, labels).macro_f1_difference == pytest.approx(expected)


def macro_f1_by_hand(y: np.ndarray, given: np.ndarray, labels: int) -> float:
    """Macro-F1 as scikit-learn has it, whose own function would take seconds for a bootstrap."""
    scores = []
    for label in range(labels):
        hits = int(((y == label) & (given == label)).sum())
        scores.append(2 * hits / max(1, int((y == label).sum()) + int((given == label).sum())))
    return sum(scores) / labels


@pytest.mark.parametrize("labels", [2, 3])
def test_the_interval_agrees_with_a_naive_bootstrap(labels: int) -> None:
    dice = np.random.default_rng(2)
    y = dice.integers(0, labels, 150)
    a = np.where(dice.random(150) < 0.8, y, (y + 1) % labels)
    b = np.where(dice.random(150) < 0.7, y, (y + 1) % labels)
    differences = []
    for _ in range(1000):
        drawn = dice.integers(0, 150, 150)
        scores = [macro_f1_by_hand(y[drawn], given[drawn], labels) for given in (a, b)]
        differences.append(scores[1] - scores[0])
    expected = f1_score(y, a, labels=range(labels), average="macro", zero_division=0)
    assert macro_f1_by_hand(y, a, labels) == pytest.approx(expected)
    found = compare(y, a, b, labels)
    np.testing.assert_allclose(found.interval, np.quantile(differences, [0.025, 0.975]), atol=0.015)
    assert RESAMPLES >= 1000


def test_the_accuracy_difference_counts_rows_that_only_one_got_right() -> None:
    dice = np.random.default_rng(3)
    y = dice.integers(0, 3, 400)
    a, b = (np.where(dice.random(400) < share, y, (y + 1) % 3) for share in (0.8, 0.7))
    found = compare(y, a, b, 3)
    won = (b == y).astype(float) - (a == y)
    assert found.accuracy_difference == pytest.approx(won.mean())
    # The bootstrap distribution of a mean is about normal, with the standard error of the mean.
    expected = won.mean() + np.array([-1.96, 1.96]) * won.std() / 20
    np.testing.assert_allclose(found.accuracy_interval, expected, atol=0.006)


@pytest.mark.parametrize(
    ("difference", "error", "expected"),
    [
        (0.015, 0.01, 171),  # 100 · (1.96 · 0.01 / 0.015)²: soonest different from zero
        (-0.015, 0.01, 171),
        (0.005, 0.01, 1083),  # 100 · (1.645 · 0.01 / 0.005)²: sooner within the margin
        (0.0, 0.01, 271),  # 100 · 1.645²
        (0.015, 0.001, 100),  # enough as it is
    ],
)
def test_rows_to_decide_by_hand(difference: float, error: float, expected: int) -> None:
    assert rows_to_decide(difference, error, 100, margin=0.01) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("a_wrong", "b_wrong"), [(range(100), range(60, 170)), (range(100), range(50, 151))])
def test_the_estimated_rows_decide_and_half_of_them_do_not(a_wrong: range, b_wrong: range) -> None:
    y = np.arange(1000) % 2
    a, b = flipped(y, a_wrong), flipped(y, b_wrong)
    found = compare(y, a, b, 2)
    assert found.verdict == "inconclusive"
    assert found.rows_to_decide is not None
    assert f"inconclusive (needs ~{found.rows_to_decide:,} rows)" == found.verdict_text
    times = found.rows_to_decide / 1000

    def repeated(count: int) -> Comparison:
        return compare(np.tile(y, count), np.tile(a, count), np.tile(b, count), 2)

    assert repeated(round(1.3 * times) + 1).verdict != "inconclusive"
    assert repeated(max(1, int(0.5 * times))).verdict == "inconclusive"


def test_a_conclusive_verdict_needs_no_more_rows() -> None:
    y = np.arange(2000) % 2
    found = compare(y, y, flipped(y, range(300)), 2)
    assert (found.verdict, found.rows_to_decide, found.verdict_text) == ("worse", None, "worse")


def test_a_comparison_with_itself_is_equivalent() -> None:
    y = labeled(50)
    given = flipped(y, range(12))
    found = compare(y, given, given, 2)
    assert (found.verdict, found.macro_f1_difference, found.interval) == ("equivalent", 0.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("rows", "a_wrong", "b_wrong", "verdict"),
    [
        (20_000, range(2000), range(2010), "equivalent"),
        (20_000, range(2000), range(1000, 3000), "equivalent"),
        (2_000, range(200), range(400), "worse"),
        (2_000, range(400), range(200), "better"),
        (60, range(6), range(3, 12), "inconclusive"),
        (40, range(8), range(8, 16), "inconclusive"),
        (5, range(0), range(1), "inconclusive"),
    ],
)
def test_the_verdict_on_synthetic_predictions(rows: int, a_wrong: range, b_wrong: range, verdict: str) -> None:
    y = np.arange(rows) % 2
    found = compare(y, flipped(y, a_wrong), flipped(y, b_wrong), 2)
    assert found.verdict == verdict


def test_a_difference_below_the_margin_is_equivalent_even_if_it_is_certain() -> None:
    y = np.arange(20_000) % 2
    found = compare(y, y, flipped(y, range(100)), 2)
    assert found.interval[1] < 0
    assert found.mcnemar_p < 1e-6
    assert found.verdict == "equivalent"
    assert compare(y, y, flipped(y, range(100)), 2, margin=0.001).verdict == "worse"


def test_swapping_the_two_reverses_the_comparison() -> None:
    y = np.arange(2_000) % 2
    a, b = flipped(y, range(200)), flipped(y, range(150, 480))
    one, other = compare(y, a, b, 2), compare(y, b, a, 2)
    assert (one.verdict, other.verdict) == ("worse", "better")
    assert one.macro_f1_difference == pytest.approx(-other.macro_f1_difference)
    np.testing.assert_allclose(one.interval, (-other.interval[1], -other.interval[0]), atol=2e-3)
    assert (one.only_a_right, one.only_b_right) == (other.only_b_right, other.only_a_right)
    assert one.mcnemar_p == pytest.approx(other.mcnemar_p)


def test_a_comparison_is_reproducible() -> None:
    y = labeled(300)
    a, b = flipped(y, range(30)), flipped(y, range(20, 60))
    assert compare(y, a, b, 2) == compare(y, a, b, 2)


def test_a_comparison_goes_to_json_with_its_margin() -> None:
    y = labeled(40)
    found = json.loads(json.dumps(compare(y, y, flipped(y, range(4)), 2).as_dict()))
    assert (found["margin"], found["rows"]) == (MARGIN, 40)
    assert len(found["interval"]) == 2


def test_the_interval_holds_the_estimate_with_many_rare_labels() -> None:
    """40 labels of two rows each: a resample misses many of them."""
    truth = np.repeat(np.arange(40), 2)
    a = np.where(np.arange(80) % 2 == 0, truth, (truth + 1) % 40)
    found = compare(truth, a, truth, 40)
    low, high = found.interval
    assert low <= found.macro_f1_difference <= high


def test_repeated_rows_narrow_the_interval_and_keep_the_estimate() -> None:
    random = np.random.default_rng(4)
    truth, a, b = (random.integers(3, size=500) for _ in range(3))
    few = compare(truth, a, b, 3)
    many = compare(*(np.tile(each, 400) for each in (truth, a, b)), 3)  # 200,000 rows of the same cells
    assert many.macro_f1_difference == pytest.approx(few.macro_f1_difference)
    width = [found.interval[1] - found.interval[0] for found in (few, many)]
    assert width[1] == pytest.approx(width[0] / 20, rel=0.15)

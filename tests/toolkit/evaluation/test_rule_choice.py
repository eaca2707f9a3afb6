import numpy as np
import pytest

from toolkit.evaluation.decision_rule import DecisionRule, rule_from
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.rule_choice import _best_offset, choose_rule


def skewed(seed: int, shares: tuple[float, ...], rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Labels with the given shares, and the probabilities of a classifier that follows the shares."""
    dice = np.random.default_rng(seed)
    labels = dice.choice(len(shares), size=rows, p=shares)
    logits = dice.normal(size=(rows, len(shares))) + 1.5 * np.eye(len(shares))[labels] + np.log(shares)
    return labels, softmax(logits)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_best_offset_is_that_of_an_exhaustive_search(count: int) -> None:
    dice = np.random.default_rng(count)
    labels, scores = dice.integers(count, size=60), dice.normal(size=(60, count)).round(1)
    weights = dice.multinomial(60, np.full(60, 1 / 60))

    def score(offset: float, label: int) -> float:
        moved = scores.copy()
        moved[:, label] += offset
        return macro_f1(np.repeat(labels, weights), np.repeat(moved.argmax(axis=1), weights), count)

    for label in range(count):
        best = max(score(offset, label) for offset in np.linspace(-8, 8, 3203))
        assert score(_best_offset(labels, scores, label, weights), label) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("shares", [(0.95, 0.05), (0.9, 0.1), (0.8, 0.15, 0.05), (0.6, 0.2, 0.1, 0.05, 0.05)])
def test_rare_labels_gain_on_rows_that_the_rule_never_saw(shares: tuple[float, ...]) -> None:
    choice = choose_rule(*skewed(0, shares))
    labels, probabilities = skewed(1, shares, 20_000)
    before = macro_f1(labels, probabilities.argmax(axis=1), len(shares))
    after = macro_f1(labels, choice.rule.predict(probabilities), len(shares))
    assert after > before + 0.02
    assert abs(choice.gain - (after - before)) < 3 * choice.gain_error
    assert choice.method in ("threshold", "logit adjustment", "offsets")


@pytest.mark.parametrize("count", [2, 4])
def test_little_is_lost_to_luck_where_the_default_is_best(count: int) -> None:
    shares, methods, differences = (1 / count,) * count, [], []
    for seed in range(12):
        choice = choose_rule(*skewed(seed, shares, 150))
        labels, probabilities = skewed(100 + seed, shares, 5000)
        before, after = probabilities.argmax(axis=1), choice.rule.predict(probabilities)
        methods.append(choice.method)
        differences.append(macro_f1(labels, after, count) - macro_f1(labels, before, count))
        assert (choice.method == "default") == (choice.gain <= choice.gain_error)
    assert methods.count("default") >= 8
    assert np.mean(differences) > -0.002


def test_a_bias_that_the_shares_do_not_explain_is_corrected_by_free_offsets() -> None:
    labels, probabilities = skewed(0, (1 / 3,) * 3)
    biased = probabilities * np.exp([1.5, 0.0, -1.5])
    choice = choose_rule(labels, biased / biased.sum(axis=1, keepdims=True))
    assert choice.method == "offsets"
    assert choice.rule.offsets == pytest.approx((-1.5, 0.0, 1.5), abs=0.3)


def test_an_inherited_rule_replaces_the_default_unless_it_is_worse() -> None:
    labels, probabilities = skewed(0, (0.8, 0.15, 0.05), 60)  # too few rows to choose a rule of its own
    good, bad = DecisionRule(offsets=(-0.8, 0.2, 0.6)), DecisionRule(offsets=(9.0, 0.0, 0.0))
    assert choose_rule(labels, probabilities, good).rule == good
    assert choose_rule(labels, probabilities, good).method == "inherited"
    assert choose_rule(labels, probabilities, bad) == choose_rule(labels, probabilities)


def test_a_label_without_rows_and_very_few_rows_do_not_fail() -> None:
    assert choose_rule(np.zeros(9, dtype=int), np.full((9, 2), 0.5)).rule.threshold is not None
    assert choose_rule(np.array([0, 1]), np.full((2, 3), 1 / 3)).method == "default"


@pytest.mark.parametrize("rule", [DecisionRule(), DecisionRule(0.37), DecisionRule(offsets=(0.1, -0.1, 0.0))])
def test_a_rule_survives_json(rule: DecisionRule) -> None:
    assert rule_from(rule.as_dict()) == rule


def test_a_threshold_is_inclusive_and_offsets_are_added_to_log_probabilities() -> None:
    assert DecisionRule(0.3).predict(np.array([[0.7, 0.3], [0.71, 0.29]])).tolist() == [1, 0]
    table = np.array([[0.6, 0.3, 0.1], [0.1, 0.0, 0.9]])
    assert DecisionRule(offsets=(0.0, np.log(2.1), 0.0)).predict(table).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        (2, DecisionRule()),
        (2, DecisionRule(0.2)),
        (2, DecisionRule(0.0)),
        (2, DecisionRule(1.0)),
        (4, DecisionRule()),
        (4, DecisionRule(offsets=(0.5, -1.0, 0.0, 2.0))),
    ],
)
def test_a_rule_as_numbers_for_logits_predicts_the_same(labels: int, rule: DecisionRule) -> None:
    logits = np.random.default_rng(0).normal(scale=2.0, size=(500, labels))
    predicted = (logits + rule.logit_offsets(labels)).argmax(axis=1)
    np.testing.assert_array_equal(predicted, rule.predict(softmax(logits)))

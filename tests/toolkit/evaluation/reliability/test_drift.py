"""Drift is told from chance, is not a matter of many rows, and costs what a simulated shift costs."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.metrics import f1_score

from toolkit.evaluation.reliability.drift import (
    DRIFT,
    HALF,
    NONE,
    RETRAIN,
    UNKNOWN_COST,
    compare_with,
    reference_of,
)

ROWS = 2_000


def held_out(seed: int, rows: int = ROWS) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Rows whose error depends on the probability and not on the length."""
    random = np.random.default_rng(seed)
    probability = random.uniform(0.5, 1, rows)
    truth = random.integers(0, 2, rows)
    predicted = np.where(random.random(rows) < probability, truth, 1 - truth)
    values = {
        "probability": probability,
        "length": random.uniform(5, 200, rows),
        "predicted label": np.array(["no", "yes"])[predicted],
    }
    return values, truth, predicted


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return reference_of(*held_out(0), 2)


def verdicts(reference: dict[str, Any], values: dict[str, np.ndarray]) -> dict[str, str]:
    return {line.line: line.verdict for line in compare_with(reference, values).lines}


def test_fresh_rows_do_not_drift(reference: dict[str, Any]) -> None:
    lines = [compare_with(reference, held_out(seed, 300)[0]).lines for seed in range(1, 101)]
    falsely = sum(any(line.p_holm < 0.05 for line in found) for found in lines)
    assert falsely <= 12, "5 % of 100, and 3 standard errors"
    assert sum(any(line.verdict != NONE for line in found) for found in lines) <= falsely


def test_retrain_is_said_only_where_held_out_rows_lose(reference: dict[str, Any]) -> None:
    values, *_ = held_out(1)
    unsure = values["probability"] < 0.7
    assert verdicts(reference, {"probability": values["probability"][unsure]}) == {"probability": RETRAIN}
    long = values["length"] > 100
    assert verdicts(reference, {"length": values["length"][long]}) == {"length": DRIFT}
    sure = values["probability"] > 0.8  # a shift to easy rows costs nothing
    assert verdicts(reference, {"probability": values["probability"][sure]}) == {"probability": DRIFT}


def test_a_million_rows_do_not_make_a_small_difference_drift(reference: dict[str, Any]) -> None:
    random = np.random.default_rng(3)
    probability = random.uniform(0.5, 1, 1_000_000) ** 1.12
    (line,) = compare_with(reference, {"probability": probability}).lines
    assert line.p_holm < 1e-3
    assert line.moved < 0.1
    assert line.verdict == NONE


def test_the_simulated_change_is_that_of_rows_drawn_with_the_shift(reference: dict[str, Any]) -> None:
    """Against macro-F1 of rows that are drawn, with their labels, so that half of them are from the unsure third."""
    values, truth, predicted = held_out(0)
    edges = np.quantile(values["probability"], np.arange(1, 10) / 10, method="lower")
    bins = np.digitize(values["probability"], edges, right=True)
    random = np.random.default_rng(5)
    first, rest = np.flatnonzero(bins == 0), np.arange(ROWS)
    drawn = np.concatenate([random.choice(first, 100_000), random.choice(rest, 100_000)])
    shifted = f1_score(truth[drawn], predicted[drawn], average="macro")
    found = next(each for each in reference["simulated"] if each["line"] == "probability")
    assert found["macro_f1"] == pytest.approx(shifted, abs=0.005)
    assert found["moved"] == pytest.approx(HALF * 0.9, abs=0.001)
    (line,) = compare_with(reference, {"probability": values["probability"][drawn]}).lines
    assert line.macro_f1_change == pytest.approx(shifted - reference["macro_f1"], abs=0.005)
    assert line.interval is not None
    assert line.interval[0] < line.macro_f1_change < line.interval[1]
    assert reference["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_another_mix_of_labels_costs_what_rows_drawn_with_it_lose() -> None:
    """A model that errs on one of three labels only: with more texts of that label, macro-F1 falls."""
    random = np.random.default_rng(0)
    truth = random.choice(3, ROWS, p=[0.6, 0.3, 0.1])
    predicted = np.where((truth == 2) & (random.random(ROWS) < 0.4), 0, truth)
    reference = reference_of({"predicted label": np.array(["a", "b", "c"])[predicted]}, truth, predicted, 3)
    weights = np.array([0.1, 0.3, 0.6])[truth] / np.array([0.6, 0.3, 0.1])[truth]
    drawn = random.choice(ROWS, 5_000, p=weights / weights.sum())
    change = f1_score(truth[drawn], predicted[drawn], average="macro") - reference["macro_f1"]
    assert change < -0.05
    (line,) = compare_with(reference, {"predicted label": np.array(["a", "b", "c"])[predicted[drawn]]}).lines
    assert line.macro_f1_change == pytest.approx(change, abs=0.03)
    assert line.verdict == RETRAIN


def test_p_values_are_those_of_scipy(reference: dict[str, Any]) -> None:
    values, *_ = held_out(1)
    labels = values["predicted label"][:500]
    (line,) = compare_with(reference, {"predicted label": labels}).lines
    counts = np.array(reference["lines"]["predicted label"]["counts"]).sum(axis=0)
    names = reference["lines"]["predicted label"]["names"]
    table = [counts[:2], [(labels == name).sum() for name in names[:2]]]
    assert line.p == pytest.approx(chi2_contingency(table, correction=False).pvalue)
    assert line.p_holm == line.p


def test_texts_of_a_kind_that_was_never_held_out_have_no_simulated_cost(reference: dict[str, Any]) -> None:
    (line,) = compare_with(reference, {"predicted label": np.array(["maybe"] * 400)}).lines
    assert line.verdict == UNKNOWN_COST
    assert line.macro_f1_change is None
    assert (line.bin, line.before, line.after) == ("other", 0, 1)
    assert compare_with(reference, {"predicted label": np.array(["maybe"] * 400)}).verdict == UNKNOWN_COST


def test_ten_texts_are_not_enough_for_a_test(reference: dict[str, Any]) -> None:
    assert set(verdicts(reference, held_out(1, 3)[0]).values()) == {NONE}


def test_the_reference_is_summaries_and_survives_json(reference: dict[str, Any]) -> None:
    import json

    assert len(json.dumps(reference)) < 10_000
    values = held_out(1)[0]
    assert compare_with(json.loads(json.dumps(reference)), values) == compare_with(reference, values)


def test_values_that_are_nearly_all_equal_have_few_bins() -> None:
    values, truth, predicted = held_out(0)
    values = {"unknown n-grams": np.where(np.arange(ROWS) % 50 == 0, 0.5, 0.0)}
    found = reference_of(values, truth, predicted, 2)
    assert len(found["lines"]["unknown n-grams"]["edges"]) == 1
    assert verdicts(found, values) == {"unknown n-grams": NONE}
    assert compare_with(found, {"unknown n-grams": np.full(300, 0.5)}).lines[0].p < 1e-9

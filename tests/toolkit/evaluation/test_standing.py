import numpy as np
import pytest

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.standing import Standing, standing_of

NEEDS_FORCE = Standing.needs_force  # before conftest.py lets toy models be packaged


def contender(toy: Corpus, wrong: int | slice | None) -> Contender:
    """A model that errs on these test rows, or always predicts label 1."""
    rows = toy.rows("test")
    predicted = toy.labels[rows].copy()
    if wrong is None:
        predicted[:] = 1
    else:
        predicted[wrong if isinstance(wrong, slice) else slice(wrong)] ^= 1
    return Contender("model", Predictions(rows, np.eye(2, dtype=np.float32)[predicted] * 9), DecisionRule(0.5))


@pytest.mark.parametrize(
    ("wrong", "linear_wrong", "short", "needs_force"),
    [
        (0, 0, "", False),
        (0, 5, "", False),
        (5, 4, "below linear baseline", False),
        (8, 0, "worse than linear baseline", True),
        (slice(None), 0, "near chance", True),
        (None, 0, "near chance", True),
        (None, None, "near chance", True),
        (18, 18, "near chance", True),
    ],
)
def test_what_is_worse_than_the_linear_baseline_or_near_chance_needs_force(
    toy: Corpus,
    wrong: int | slice | None,
    linear_wrong: int | None,
    short: str,
    needs_force: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Standing, "needs_force", NEEDS_FORCE)
    found = standing_of(toy, contender(toy, wrong), contender(toy, linear_wrong))
    assert found.rows == 36
    assert (found.short, found.needs_force) == (short, needs_force)
    assert bool(found.problem) == bool(short)


def test_the_problem_states_both_figures_and_whether_the_difference_is_within_chance() -> None:
    below = Standing(60, 0.7, (0.6, 0.8), 0.75, (-0.12, 0.02), 0.5)
    assert below.problem == (
        "below the linear baseline, a difference within chance: macro-F1 0.7000 against 0.7500 on the same 60 test "
        "rows (-5.00 points, 95 % interval -12.00 … +2.00)"
    )
    worse = Standing(60, 0.7, (0.6, 0.8), 0.75, (-0.12, -0.02), 0.5)
    assert worse.problem.startswith("worse than the linear baseline: macro-F1 0.7000 against 0.7500 on the same 60")
    chance = Standing(60, 0.3, (0.2, 0.4), 0.75, (-0.5, -0.4), 0.5)
    assert "ignoring the text gives 0.5000, the linear baseline 0.7500" in chance.problem

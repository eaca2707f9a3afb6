import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import TINY, examples
from toolkit.config.settings import TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.modeling.encoders import build_classifier
from toolkit.stages.cross_validation import train_baseline
from toolkit.training.learning_rate import (
    EPOCHS,
    GAIN,
    RATE_FILE,
    RATES,
    START,
    RateSearch,
    climb,
    find_learning_rate,
    with_learning_rate,
)
from toolkit.training.stopping import ToBeat
from toolkit.training.trainer import fit

AUTO = TrainingSettings(epochs=8, learning_rate="auto", batch_size=16)


@pytest.mark.parametrize("lowest", range(8))
@pytest.mark.parametrize("start", range(8))
def test_the_lowest_of_a_convex_curve_is_found(lowest: int, start: int) -> None:
    tried: list[int] = []

    def loss_at(i: int) -> float:
        tried.append(i)
        return abs(i - lowest)

    assert climb(loss_at, start, 8) == lowest
    assert len(set(tried)) <= abs(start - lowest) + 3  # the way, one step too far, and a step in the other direction


@pytest.mark.parametrize(("losses", "best"), [((1.1, 1.0, 0.995), 1), ((1.1, 1.0, 0.98), 2), ((0.999, 1.0, 1.1), 0)])
def test_a_higher_rate_must_be_clearly_better_in_so_few_epochs(losses: tuple[float, ...], best: int) -> None:
    assert climb(losses.__getitem__, 1, 3) == best


def test_a_diverged_training_is_never_chosen() -> None:
    assert climb(lambda i: math.inf if i > 3 else 1.0 - i / 10, 3, 8) == 3


@pytest.mark.slow
def test_the_trial_of_a_rate_is_a_short_training_with_it(toy: Corpus, tmp_path: Path) -> None:
    train, validation = examples(toy, "train"), examples(toy, "validation")

    def start() -> Any:
        return build_classifier(TINY, toy.label_names, train.texts, seed=0), None

    found = find_learning_rate(start, train, validation, AUTO, seed=0)
    assert found.losses[found.rate] * (1 - GAIN) <= min(found.losses.values())
    places = [RATES.index(rate) for rate in found.losses]
    assert set(places) == set(range(min(places), max(places) + 1)) and RATES.index(START) in places
    best = RATES.index(found.rate)
    assert {max(best - 1, 0), min(best + 1, len(RATES) - 1)} <= set(places)  # nothing beside it is lower
    short = replace(AUTO, learning_rate=found.rate, epochs=EPOCHS)
    history = fit(start()[0], train, validation, short, 0, tmp_path).history
    assert history[-1]["val_loss"] == pytest.approx(found.losses[found.rate], rel=1e-5)


def never() -> RateSearch:
    raise AssertionError("nothing should be tried")


def test_a_rate_that_was_found_is_kept_for_a_resumed_training(tmp_path: Path) -> None:
    file = tmp_path / RATE_FILE
    search = RateSearch(5e-4, {1e-4: 0.5, 5e-4: 0.25, 1e-3: math.inf})
    settings, details = with_learning_rate(AUTO, file, lambda: search)
    assert settings == replace(AUTO, learning_rate=5e-4)
    assert details["learning_rate_search"]["trials"] == {"0.0001": 0.5, "0.0005": 0.25, "0.001": None}
    assert json.loads(file.read_text("utf-8")) == details["learning_rate_search"]
    assert with_learning_rate(AUTO, file, never) == (settings, details)


def test_a_given_rate_is_not_searched(tmp_path: Path) -> None:
    given = replace(AUTO, learning_rate=3e-5)
    assert with_learning_rate(given, tmp_path / RATE_FILE, never) == (given, {})


@pytest.mark.slow
def test_folds_are_trained_at_the_rate_that_was_found(
    toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.training.learning_rate.RATES", (1e-4, 5e-3))
    used: list[Any] = []

    def spy(fit: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: (used.append(args[3].learning_rate), fit(*args, **options))[1]

    monkeypatch.setattr("toolkit.stages.cross_validation.fit", spy(fit))
    result = train_baseline(toy, TINY, replace(AUTO, epochs=1), tmp_path / "1-baseline")
    assert used == [5e-3] * toy.folds  # a tiny model from random weights needs the higher one
    assert result.details["learning_rate"] == 5e-3
    assert set(result.details["learning_rate_search"]["trials"]) == {"0.0001", "0.005"}


@pytest.mark.parametrize(
    ("losses", "epochs", "stops"),
    [
        ([0.9, 0.9], 4, False),  # never before the third epoch
        ([0.9, 0.9, 0.9], 4, True),
        ([0.9, 0.9, 0.9], 8, False),  # not in the first half
        ([0.9, 0.9, 0.9, 0.9], 8, True),
        ([0.9, 0.9, 0.9, 0.8], 8, False),  # it still falls
        ([0.9, 0.4, 0.9, 0.9], 8, False),  # it was lower than the linear baseline's
        ([math.nan] * 4, 8, True),
    ],
)
def test_a_training_without_prospect_stops(losses: list[float], epochs: int, stops: bool) -> None:
    history = [{"val_loss": loss, "val_macro_f1": 0.5} for loss in losses]
    assert ToBeat(loss=0.5, macro_f1=0.8).is_out_of_reach(history, epochs) is stops


def test_a_fold_that_cannot_reach_the_linear_baseline_stops_early(
    toy: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hopeless = replace(AUTO, learning_rate=1e-9, early_stopping_patience=8)
    result = train_baseline(toy, TINY, hopeless, tmp_path / "1-baseline", to_beat=ToBeat(0.1, 0.99))
    for fold in (1, 2):
        history = json.loads((tmp_path / "1-baseline" / f"fold-{fold}" / "fold.json").read_text("utf-8"))["history"]
        assert 4 <= len(history) < 8
    printed = capsys.readouterr()
    assert "epochs; the linear baseline has" in printed.out + printed.err and result.metrics["macro_f1"] < 0.9

"""Trainings that are spread over a Ray cluster are those of one process."""

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.helpers import TINY
from toolkit.config.settings import TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions
from toolkit.stages.cross_validation import train_baseline
from toolkit.training.processes import spread
from toolkit.utils.errors import InputError
from toolkit.workflows import halving

SETTINGS = TrainingSettings(epochs=2, learning_rate=5e-3)
Tasks = list[tuple[Any, ...]]


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """The arguments of the tasks that a stand-in for Ray has run, each at once."""
    done: Tasks = []

    def remote(**_: Any) -> Callable[..., Any]:
        def task(function: Callable[..., Any]) -> Any:
            def run(*arguments: Any) -> Any:
                done.append(arguments)
                return function(*arguments)

            return SimpleNamespace(remote=run)

        return task

    @contextmanager
    def connected() -> Any:
        errors = SimpleNamespace(RayTaskError=KeyError)
        nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}]
        yield SimpleNamespace(remote=remote, get=lambda result: result, nodes=lambda: nodes, exceptions=errors)

    monkeypatch.setattr(spread, "_connected", connected)
    monkeypatch.setattr(spread, "_is_installed", lambda: True)
    return done


@pytest.mark.parametrize("on", ["spark", "ray://", "ray://head", "ray://head:x", "", "local", "ray:head:1"])
def test_another_place_is_refused(on: str) -> None:
    with pytest.raises(InputError, match="give ray, or ray://HOST:PORT"), spread.spread_over(on):
        pass


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'hbt-toolkit\[ray\]'"), spread.spread_over("ray"):
        pass


def test_only_a_block_is_spread(tasks: Tasks) -> None:
    assert not spread.is_spread()
    with spread.spread_over("ray"):
        assert spread.is_spread()
        assert list(spread.each_of("numbers", divmod, [(7, 2), (9, 4)])) == [(3, 1), (2, 1)]
    assert not spread.is_spread()
    assert [task[2:] for task in tasks] == [(7, 2), (9, 4)]


def test_a_worker_without_the_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder that all machines share"):
        spread._in_folder(tmp_path / "missing", print)


@pytest.mark.parametrize(
    ("machines", "jobs", "cpus", "gpus"),
    [
        ([{"CPU": 2.0}], 5, 1, 0),
        ([{"CPU": 8.0}], 2, 4, 0),
        ([{"CPU": 8.0}] * 4, 2, 8, 0),  # a training stays on one machine
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0}], 4, 8, 1),
    ],
)
def test_the_cores_are_shared_out(machines: list[dict[str, float]], jobs: int, cpus: int, gpus: int) -> None:
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": each} for each in machines])
    assert spread._share(ray, jobs) == {"num_cpus": cpus, "num_gpus": gpus}


def test_spread_folds_are_those_of_one_process_and_finished_ones_are_kept(
    toy: Corpus, tmp_path: Path, tasks: Tasks
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    seen: dict[str, list[tuple[int, int, dict[str, float]]]] = {"one": [], "other": []}
    train_baseline(toy, TINY, SETTINGS, one, lambda *each: seen["one"].append(each))
    with spread.spread_over("ray"):
        train_baseline(toy, TINY, SETTINGS, other, lambda *each: seen["other"].append(each))
    assert len(tasks) == toy.folds
    np.testing.assert_array_equal(*(Predictions.load(each / PREDICTIONS_FILE).logits for each in (one, other)))
    assert seen["one"] == seen["other"]


def test_the_students_of_a_search_are_trained_on_the_cluster(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "_loss_after", lambda recipe, epochs: {"big": 0.2, "small": 0.3}[recipe] / epochs)
    trainings: Any = {"layers:2": ("big", 2), "layers:1": ("small", 3)}
    alone = halving.losses_after(trainings)
    assert not tasks
    with spread.spread_over("ray"):
        assert halving.losses_after(trainings) == alone == pytest.approx({"layers:2": 0.1, "layers:1": 0.1})
    assert [task[2:] for task in tasks] == [("big", 2), ("small", 3)]


@pytest.mark.slow
def test_ray_trains_the_folds_of_one_process(toy: Corpus, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs hbt-toolkit[ray]")
    train_baseline(toy, TINY, SETTINGS, tmp_path / "one")
    with spread.spread_over("ray"):
        train_baseline(toy, TINY, SETTINGS, tmp_path / "ray")
    one, other = (Predictions.load(tmp_path / name / PREDICTIONS_FILE).logits for name in ("one", "ray"))
    np.testing.assert_allclose(one, other, atol=1e-4)  # other numbers of threads add in another order

"""Two processes train as one does: the same batches, losses, gradients, metrics and files."""

import dataclasses
import json
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from tests.helpers import SLOW, TINY, Hbt, examples, random_logits
from tests.test_crash import in_fork
from tests.toolkit.training.test_trainer import Killed, killed_in
from toolkit import cli
from toolkit.config.settings import TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.training import trainer
from toolkit.training.feature_distillation import DistillationLoss, FeatureTargets
from toolkit.training.processes import launch
from toolkit.training.trainer import Fit, Loop, Mechanics, fit
from toolkit.utils.errors import InputError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, which takes no time")
STILL = dataclasses.replace(TINY, dropout=0.0)
EXACT = Loop(mechanics=Mechanics(bf16=False))
SETTINGS = TrainingSettings(epochs=2, learning_rate=5e-3, batch_size=15, class_weights=True)
"""Class weights: the loss is no mean over rows. 15: the processes have different numbers of rows."""


def fresh(toy: Corpus) -> Classifier:
    return build_classifier(STILL, toy.label_names, toy.take(toy.rows("train")), seed=0)


def on_two(command: Callable[[], None], tmp_path: Path) -> list[int]:
    """Run `command` as rank 0 of two processes of torchrun; return the exit codes. What they print is in log0, log1."""
    return as_ranks(lambda: launch.run_on_all(command), tmp_path)


def as_ranks(work: Callable[[], None], tmp_path: Path) -> list[int]:
    """Do `work` in two processes that torchrun has started, as far as they can see."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start(rank: int) -> int:
        def child() -> None:
            torch.set_num_threads(1)
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
            work()

        return in_fork(child, tmp_path / f"log{rank}")

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(start, range(2)))


def logs(tmp_path: Path) -> str:
    return "".join((tmp_path / f"log{rank}").read_text() for rank in range(2))


def fitted(tmp_path: Path, train: Callable[[], tuple[Fit, Classifier]]) -> tuple[Fit, dict[str, np.ndarray]]:
    """Return what `train` returns when it runs on two processes."""

    def command() -> None:
        found, made = train()
        (tmp_path / "fit.json").write_text(json.dumps(dataclasses.asdict(found)))
        np.savez(tmp_path / "weights.npz", **weights(made))

    assert on_two(command, tmp_path) == [0, 0], logs(tmp_path)
    return Fit(**json.loads((tmp_path / "fit.json").read_text())), dict(np.load(tmp_path / "weights.npz"))


def weights(made: Classifier) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in made.network.state_dict().items()}


def assert_same(one: tuple[Fit, dict[str, np.ndarray]], two: tuple[Fit, dict[str, np.ndarray]]) -> None:
    """Losses, metrics and weights are equal but for the order of sums."""
    assert one[0].best_epoch == two[0].best_epoch
    for a, b in zip(one[0].history, two[0].history, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    for name, values in one[1].items():
        # The softmax of attention does not see this bias: its gradient is rounding, and Adam makes steps of it.
        assert name.endswith("key.bias") or np.allclose(values, two[1][name], atol=2e-4), name


@pytest.mark.parametrize(
    "method", ["logit", *(pytest.param(each, marks=SLOW) for each in ("labels", "multi_level", "relation"))]
)
def test_two_processes_train_the_weights_of_one(toy: Corpus, tmp_path: Path, method: str) -> None:
    """76 rows in batches of 15: the last batch of an epoch has one row, and one process has none."""
    train = examples(toy, "train").take(np.arange(76))
    loss = None
    if method != "labels":
        train = dataclasses.replace(train, teacher_logits=random_logits(76))
        teacher = build_classifier(dataclasses.replace(STILL, model="shape:1x64"), toy.label_names, toy.texts, seed=1)
        teacher = dataclasses.replace(teacher, tokenizer=fresh(toy).tokenizer)
        features = None if method == "logit" else FeatureTargets(teacher, method, 1.0, 1.0)  # type: ignore[arg-type]
        loss = DistillationLoss(0.5, 2.0, features)

    def run(work: Path) -> tuple[Fit, Classifier]:
        made = fresh(toy)
        return fit(made, train, examples(toy, "validation"), SETTINGS, 0, work, loss, EXACT), made

    found, made = run(tmp_path / "one")
    assert_same((found, weights(made)), fitted(tmp_path, lambda: run(tmp_path / "two")))


def test_each_row_is_computed_by_one_process_once_an_epoch(toy: Corpus, tmp_path: Path) -> None:
    """The shards of both processes together are the rows of the corpus, and rank 0 alone calls back."""

    def command() -> None:
        launch.on_all(_log_shards, tmp_path, toy)
        _log_shards(tmp_path, toy)

    assert on_two(command, tmp_path) == [0, 0], logs(tmp_path)
    shards = [json.loads((tmp_path / f"rows{rank}.json").read_text()) for rank in range(2)]
    assert [len(a) - len(b) in (0, 1) for a, b in zip(*shards, strict=True)] == [True] * len(shards[0])
    together = [row for batches in shards for batch in batches for row in batch]
    assert sorted(together) == list(range(31))


def _log_shards(folder: Path, toy: Corpus) -> None:
    from torch.utils.data import RandomSampler

    from toolkit.training.dataset import Collate, encoded
    from toolkit.training.processes.shards import NO_ROW, Rows, sharded

    torch.manual_seed(launch.rank())  # the order of rows is that of rank 0
    rows = Rows(encoded(fresh(toy), examples(toy, "train").take(np.arange(31))))
    batches = [batch["rows"].tolist() for batch in sharded(rows, RandomSampler(rows), 6, Collate(0, 0))]
    kept = [[row for row in batch if row != NO_ROW] for batch in batches]
    (folder / f"rows{launch.rank()}.json").write_text(json.dumps(kept))


@pytest.mark.slow
def test_weights_that_rank_0_changes_after_a_step_are_those_of_all(toy: Corpus, tmp_path: Path) -> None:
    """As the masks of pruning do: a weight held at zero gets no update from the other process."""

    def run(work: Path) -> tuple[Fit, Classifier]:
        made = fresh(toy)

        def hold(step: int) -> None:
            made.network.head.weight.data[:, ::2] = 0  # type: ignore[union-attr]

        loop = dataclasses.replace(EXACT, after_step=hold)
        return fit(made, examples(toy, "train"), examples(toy, "validation"), SETTINGS, 0, work, None, loop), made

    found, made = run(tmp_path / "one")
    assert_same((found, weights(made)), fitted(tmp_path, lambda: run(tmp_path / "two")))


@pytest.mark.slow
def test_a_network_that_cannot_be_sent_is_trained_by_rank_0_alone(toy: Corpus, tmp_path: Path) -> None:
    """As fake quantization is; the next training has both processes again."""

    def run(work: Path) -> tuple[Fit, Classifier]:
        made, data = fresh(toy), (examples(toy, "train"), examples(toy, "validation"))
        parametrize.register_parametrization(made.network.head, "weight", nn.Identity())  # type: ignore[arg-type]
        fit(made, *data, SETTINGS, 0, work / "alone", None, EXACT)
        parametrize.remove_parametrizations(made.network.head, "weight")  # type: ignore[arg-type]
        return fit(made, *data, SETTINGS, 0, work / "together", None, EXACT), made

    found, made = run(tmp_path / "one")
    assert_same((found, weights(made)), fitted(tmp_path, lambda: run(tmp_path / "two")))


@pytest.mark.slow
def test_a_killed_training_resumes_on_two_processes(toy: Corpus, tmp_path: Path) -> None:
    data = examples(toy, "train")

    def run(work: Path, loop: Loop) -> tuple[Fit, Classifier]:
        made = fresh(toy)
        return fit(made, data, examples(toy, "validation"), SETTINGS, 0, work, None, loop), made

    def killed() -> None:
        with pytest.raises(Killed):
            run(tmp_path / "work", dataclasses.replace(EXACT, watch=killed_in(2)))
        os._exit(9)

    assert on_two(killed, tmp_path)[0] == 9, logs(tmp_path)
    resumed = fitted(tmp_path, lambda: run(tmp_path / "work", EXACT))
    found, made = run(tmp_path / "one", EXACT)
    assert_same((found, weights(made)), resumed)


def test_one_lost_process_ends_the_other_with_one_line(toy: Corpus, tmp_path: Path) -> None:
    def command() -> None:
        launch.on_all(os._exit, 7)
        fit(fresh(toy), examples(toy, "train"), examples(toy, "validation"), SETTINGS, 0, tmp_path / "work")

    assert on_two(command, tmp_path) == [1, 7]
    assert logs(tmp_path) == "hbt: another process of this training has ended; rerun the same command to resume\n"


def test_an_error_of_rank_0_ends_the_other_quietly(tmp_path: Path) -> None:
    def command() -> None:
        print("hbt: comments.csv: no such file", flush=True)
        os._exit(2)

    assert on_two(command, tmp_path) == [2, 1]
    assert logs(tmp_path) == "hbt: comments.csv: no such file\n"


def hbt_on_two(tmp_path: Path, *arguments: str) -> list[int]:
    def work() -> None:
        sys.argv = ["hbt", *arguments]
        cli.main()

    return as_ranks(work, tmp_path)


def test_wrong_input_is_one_line_under_torchrun(workplace: Path) -> None:
    assert hbt_on_two(workplace, "train", "--data", "nothing.csv") == [2, 1]
    assert logs(workplace).count("\n") == 1
    assert logs(workplace).startswith("hbt: nothing.csv:")


def test_a_cluster_under_torchrun_is_refused(workplace: Path) -> None:
    assert hbt_on_two(workplace, "train", "--data", "comments.csv", "--on", "ray") == [2, 1]
    assert logs(workplace).startswith("hbt: --on ray: not under torchrun")
    assert logs(workplace).count("\n") == 1


@pytest.mark.slow
def test_the_command_trains_on_two_processes_what_it_trains_on_one(
    workplace: Path, hbt: Hbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "has_bf16", lambda _: False)  # its rounding depends on how a batch is divided
    how = ["--data", "comments.csv", "--model", "shape:1x32", "--max-length", "32", "--folds", "2", "--epochs", "2"]
    how += ["--student", "layers:1", "--learning-rate", "1e-3", "--kd-learning-rate", "1e-3", "--dropout", "0"]
    assert hbt("train", *how, "--name", "one") == 0
    assert hbt_on_two(workplace, "train", *how, "--name", "two") == [0, 0], logs(workplace)
    # A fork has imported torch before the command sets TORCH_CPP_LOG_LEVEL.
    assert [line for line in (workplace / "log1").read_text().splitlines() if "reducer.cpp" not in line] == []
    assert (workplace / "log0").read_text().count("runs/two/1-baseline: macro-F1") == 1
    for stage in ("1-baseline", "2-distillation"):
        one, two = (
            json.loads(Path("runs", name, stage, "result.json").read_text())["metrics"] for name in ("one", "two")
        )
        assert one["macro_f1"] == pytest.approx(two["macro_f1"], abs=0.005)
        assert one["roc_auc"] == pytest.approx(two["roc_auc"], abs=0.005)


def test_a_script_under_torchrun_is_refused(toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(InputError, match="only the command line trains on several processes"):
        fit(fresh(toy), examples(toy, "train"), examples(toy, "validation"), SETTINGS, 0, tmp_path)


def test_a_process_started_by_rank_0_is_no_rank(tmp_path: Path) -> None:
    def command() -> None:
        assert not set(launch.VARIABLES) & os.environ.keys()

    assert on_two(command, tmp_path) == [0, 0], logs(tmp_path)

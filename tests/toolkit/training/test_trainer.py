import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import ODD_TEXTS, TINY, examples, random_logits
from toolkit.config.settings import TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration, softmax
from toolkit.modeling.classifier import Classifier, load_classifier, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.training.dataset import Examples
from toolkit.training.feature_distillation import DistillationLoss
from toolkit.training.losses import UNLABELED
from toolkit.training.trainer import Fit, Loop, Mechanics, WatchEpoch, fit, last_complete_checkpoint

FAST = TrainingSettings(epochs=3, learning_rate=5e-3, batch_size=16)
FLOAT32 = Loop(mechanics=Mechanics(bf16=False))


def fresh(toy: Corpus) -> Classifier:
    return build_classifier(TINY, toy.label_names, toy.take(toy.rows("train")), seed=0)


def train(made: Classifier, toy: Corpus, work: Path, settings: TrainingSettings = FAST, **options: Any) -> Fit:
    loop = Loop(**options)
    return fit(made, examples(toy, "train"), examples(toy, "validation"), settings, 0, work, loop=loop)


def all_weights(made: Classifier) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in made.network.state_dict().items()}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return np.log(softmax(logits.astype(np.float64)))


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_alpha_is_the_weight_of_the_teacher(toy: Corpus, tmp_path: Path, alpha: float) -> None:
    rows = toy.rows("train")
    taught = dataclasses.replace(examples(toy, "train"), teacher_logits=random_logits(len(rows)))
    how = dataclasses.replace(FAST, epochs=1)
    found = fit(fresh(toy), taught, examples(toy, "validation"), how, 0, tmp_path, DistillationLoss(alpha, 4.0))
    (epoch,) = found.history
    mixed = alpha * epoch["train_soft_loss"] + (1 - alpha) * epoch["train_hard_loss"]
    assert epoch["train_loss"] == pytest.approx(mixed, rel=1e-4)
    assert epoch["train_soft_loss"] != pytest.approx(epoch["train_hard_loss"], rel=0.01)


def half_labeled(toy: Corpus, teacher: np.ndarray) -> Examples:
    """Every second training row without its label."""
    rows = examples(toy, "train")
    labels = np.where(np.arange(len(rows.labels)) % 2 == 0, rows.labels, UNLABELED)
    return Examples(rows.texts, labels, teacher)


@pytest.mark.parametrize("how", [FAST, dataclasses.replace(FAST, class_weights=True, loss="focal")])
def test_a_row_without_a_label_counts_as_one_in_the_batch_and_teaches_by_its_teacher(
    toy: Corpus, tmp_path: Path, how: TrainingSettings
) -> None:
    """With a learning rate of next to nothing the loss is that of the untrained network, computed here by itself."""
    rows = examples(toy, "train")
    learning = half_labeled(toy, 3 * random_logits(len(rows.texts)))
    assert learning.teacher_logits is not None
    still = dataclasses.replace(how, epochs=1, learning_rate=1e-12, batch_size=len(rows.texts))
    made = build_classifier(dataclasses.replace(TINY, dropout=0.0), toy.label_names, toy.take(toy.rows("train")), 0)
    logits = made.predict_logits(rows.texts)
    known = learning.labels != UNLABELED
    chosen = log_softmax(logits)[known, learning.labels[known]]
    each = -chosen * ((1 - np.exp(chosen)) ** 2 if how.loss == "focal" else 1)
    share = 1 / np.bincount(learning.labels[known])[learning.labels[known]] if how.class_weights else np.ones(len(each))
    hard = known.mean() * (each * share).sum() / share.sum()
    p, q = log_softmax(learning.teacher_logits / 2), log_softmax(logits / 2)
    soft = 4 * (np.exp(p) * (p - q)).sum(axis=1).mean()
    validation = examples(toy, "validation")
    (epoch,) = fit(made, learning, validation, still, 0, tmp_path, DistillationLoss(0.3, 2.0), FLOAT32).history
    assert epoch["train_hard_loss"] == pytest.approx(hard, rel=1e-3)
    assert epoch["train_soft_loss"] == pytest.approx(soft, rel=1e-3)
    assert epoch["train_total_loss"] == epoch["train_loss"] == pytest.approx(0.3 * soft + 0.7 * hard, rel=1e-3)


@pytest.mark.filterwarnings("error:invalid value:RuntimeWarning")
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_that_have_no_labels_at_all_are_learned_from_the_teacher(
    toy: Corpus, tmp_path: Path, weighted: bool
) -> None:
    rows = examples(toy, "train")
    logits = 4 * (np.eye(2, dtype=np.float32)[rows.labels] - 0.5)
    unlabelled = Examples(rows.texts, np.full(len(rows.texts), UNLABELED), logits)
    made = fresh(toy)
    how = dataclasses.replace(FAST, epochs=4, class_weights=weighted)
    found = fit(made, unlabelled, examples(toy, "validation"), how, 0, tmp_path, DistillationLoss(0.5, 2.0))
    assert [epoch["train_hard_loss"] for epoch in found.history] == [0.0] * len(found.history)
    test = examples(toy, "test")
    assert (made.predict_logits(test.texts).argmax(axis=1) == test.labels).mean() > 0.8


def test_a_row_without_a_label_needs_a_teacher(toy: Corpus, tmp_path: Path) -> None:
    logits = random_logits(len(toy.rows("train")))
    nobody = dataclasses.replace(half_labeled(toy, logits), teacher_logits=None)
    for learning, loss in (
        (half_labeled(toy, logits), None),
        (nobody, None),
        (nobody, DistillationLoss(0.5, 2.0)),
    ):
        with pytest.raises(AssertionError):
            fit(fresh(toy), learning, examples(toy, "validation"), FAST, 0, tmp_path, loss)


def test_a_students_epochs_are_compared_by_what_it_learns_from(toy: Corpus, tmp_path: Path) -> None:
    rows, judging = examples(toy, "train"), examples(toy, "validation")
    learning = dataclasses.replace(rows, teacher_logits=random_logits(len(rows.texts)))
    judging = dataclasses.replace(judging, teacher_logits=3 * random_logits(len(judging.texts)))
    how, made = dataclasses.replace(FAST, epochs=3), fresh(toy)
    found = fit(made, learning, judging, how, 0, tmp_path, DistillationLoss(0.6, 2.0), FLOAT32)
    losses = [epoch["val_loss"] for epoch in found.history]
    assert found.best_epoch == 1 + int(np.argmin(losses))
    logits = made.predict_logits(judging.texts)
    p, q = log_softmax(judging.teacher_logits / 2), log_softmax(logits / 2)
    soft = 4 * (np.exp(p) * (p - q)).sum(axis=1)
    hard = -log_softmax(logits)[np.arange(len(logits)), judging.labels]
    assert (0.6 * soft + 0.4 * hard).mean() == pytest.approx(min(losses), rel=1e-3)


def test_a_teacher_without_weight_is_as_good_as_none(toy: Corpus, tmp_path: Path) -> None:
    rows = examples(toy, "train")
    taught = dataclasses.replace(rows, teacher_logits=random_logits(len(rows.texts)))
    how = dataclasses.replace(FAST, epochs=1)
    made, plain = fresh(toy), fresh(toy)
    fit(made, taught, examples(toy, "validation"), how, 0, tmp_path / "taught", DistillationLoss(0.0, 2.0))
    train(plain, toy, tmp_path / "plain", how)
    assert all_weights(made) == all_weights(plain)


def test_a_student_learns_from_its_teacher_even_against_the_labels(toy: Corpus, tmp_path: Path) -> None:
    learning, judging = examples(toy, "train"), examples(toy, "validation")
    against = 4 * (np.eye(2, dtype=np.float32)[1 - learning.labels] - 0.5)
    upside_down = Examples(judging.texts, 1 - judging.labels)
    made = fresh(toy)
    taught = dataclasses.replace(learning, teacher_logits=against)
    fit(made, taught, upside_down, dataclasses.replace(FAST, epochs=4), 0, tmp_path, DistillationLoss(1.0, 2.0))
    test = examples(toy, "test")
    assert (made.predict_logits(test.texts).argmax(axis=1) != test.labels).mean() > 0.8


def test_the_loss_falls_and_the_toy_is_learned(toy: Corpus, tmp_path: Path) -> None:
    made = fresh(toy)
    found = train(made, toy, tmp_path, dataclasses.replace(FAST, epochs=4))
    losses = [epoch["train_loss"] for epoch in found.history]
    assert losses[-1] < 0.7 * losses[0]
    test = examples(toy, "test")
    assert (made.predict_logits(test.texts).argmax(axis=1) == test.labels).mean() > 0.8


def test_class_weights_raise_the_rare_label(toy: Corpus, tmp_path: Path) -> None:
    """Texts that tell nothing, one in eight positive: without weights the share is learned, with them a half."""
    texts = [f"made-up text {i % 5}" for i in range(240)]
    rows = Examples(texts, (np.arange(240) % 8 == 0).astype(np.int64))
    shares = {}
    for weighted in (False, True):
        made = fresh(toy)
        how = dataclasses.replace(FAST, class_weights=weighted, epochs=2)
        fit(made, rows, rows, how, 0, tmp_path / str(weighted))
        shares[weighted] = float(softmax(made.predict_logits(texts[:40]))[:, 1].mean())
    assert shares[False] < 0.3
    assert 0.35 < shares[True] < 0.65


def upside_down(toy: Corpus) -> Examples:
    """Validation rows on which learning makes a classifier worse, so that an early epoch is the best."""
    rows = examples(toy, "validation")
    return Examples(rows.texts, 1 - rows.labels)


def test_the_weights_of_the_best_epoch_are_kept(toy: Corpus, tmp_path: Path) -> None:
    made, judging = fresh(toy), upside_down(toy)
    how = dataclasses.replace(FAST, epochs=5)
    found = fit(made, examples(toy, "train"), judging, how, 0, tmp_path, loop=FLOAT32)
    scores = [epoch["val_macro_f1"] for epoch in found.history]
    assert found.best_epoch == 1 + int(np.argmax(scores))
    assert found.best_epoch < len(scores)
    logits = made.predict_logits(judging.texts)
    metrics = calculate_metrics_with_threshold_exploration(judging.labels, softmax(logits))
    assert metrics["macro_f1"] == pytest.approx(max(scores))
    loss = -log_softmax(logits)[np.arange(len(logits)), judging.labels].mean()
    assert loss == pytest.approx(found.history[found.best_epoch - 1]["val_loss"], rel=1e-4)
    assert loss != pytest.approx(found.history[-1]["val_loss"], rel=0.01)


def test_patience_ends_training(toy: Corpus, tmp_path: Path) -> None:
    how = dataclasses.replace(FAST, epochs=8, early_stopping_patience=2)
    found = fit(fresh(toy), examples(toy, "train"), upside_down(toy), how, 0, tmp_path)
    assert len(found.history) == found.best_epoch + 2 < 8


class Killed(Exception):
    pass


def killed_in(epoch: int) -> WatchEpoch:
    def watch(now: int, metrics: dict[str, float]) -> None:
        if now == epoch:
            raise Killed

    return watch


@pytest.mark.parametrize("killed", [2, 3])
def test_broken_off_training_goes_on_and_ends_as_if_it_had_not_been(toy: Corpus, tmp_path: Path, killed: int) -> None:
    whole, broken = fresh(toy), fresh(toy)
    expected = train(whole, toy, tmp_path / "whole")
    with pytest.raises(Killed):
        train(broken, toy, tmp_path / "broken", watch=killed_in(killed))
    resumed = fresh(toy)
    seen: list[int] = []
    found = train(resumed, toy, tmp_path / "broken", watch=lambda epoch, _: seen.append(epoch))
    assert seen == list(range(killed, 4))
    assert found == expected
    assert all_weights(resumed) == all_weights(whole)


@pytest.mark.parametrize("killed", [3, 4])
def test_patience_is_counted_on_after_a_resume(toy: Corpus, tmp_path: Path, killed: int) -> None:
    how = dataclasses.replace(FAST, epochs=8, early_stopping_patience=3)
    expected = fit(fresh(toy), examples(toy, "train"), upside_down(toy), how, 0, tmp_path / "whole")
    assert len(expected.history) >= killed
    loop = Loop(watch=killed_in(killed))
    with pytest.raises(Killed):
        fit(fresh(toy), examples(toy, "train"), upside_down(toy), how, 0, tmp_path / "broken", loop=loop)
    found = fit(fresh(toy), examples(toy, "train"), upside_down(toy), how, 0, tmp_path / "broken")
    assert [epoch["epoch"] for epoch in found.history] == [epoch["epoch"] for epoch in expected.history]
    assert found.best_epoch == expected.best_epoch


@pytest.mark.parametrize("patience", [1, 5], ids=["stopped early", "all epochs"])
def test_training_that_is_over_is_not_done_again(toy: Corpus, tmp_path: Path, patience: int) -> None:
    """Broken off between the last epoch and what follows it."""
    how = dataclasses.replace(FAST, epochs=4, early_stopping_patience=patience)
    first, again = fresh(toy), fresh(toy)
    expected = fit(first, examples(toy, "train"), upside_down(toy), how, 0, tmp_path)
    seen: list[int] = []
    steps: list[int] = []
    loop = Loop(watch=lambda epoch, _: seen.append(epoch), advance=steps.append)
    found = fit(again, examples(toy, "train"), upside_down(toy), how, 0, tmp_path, loop=loop)
    assert seen == []
    assert found == expected
    assert all_weights(again) == all_weights(first)


@pytest.mark.parametrize("half", [None, "", '{"epoch": 1.0, "glo'])
def test_a_half_written_checkpoint_is_ignored(toy: Corpus, tmp_path: Path, half: str | None) -> None:
    with pytest.raises(Killed):
        train(fresh(toy), toy, tmp_path, watch=killed_in(2))
    whole = last_complete_checkpoint(tmp_path)
    assert whole is not None
    (tmp_path / "checkpoint-999").mkdir()
    (tmp_path / "checkpoint-999" / "model.safetensors").write_bytes(b"half")
    if half is not None:
        (tmp_path / "checkpoint-999" / "trainer_state.json").write_text(half)
    assert last_complete_checkpoint(tmp_path) == whole
    assert not (tmp_path / "checkpoint-999").exists()
    assert len(train(fresh(toy), toy, tmp_path).history) == FAST.epochs


def test_the_newest_checkpoint_is_told_by_its_number(tmp_path: Path) -> None:
    for step in (9, 10, 100, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")
    assert last_complete_checkpoint(tmp_path / "nothing") is None


def test_a_frozen_base_keeps_its_weights_while_the_head_learns(toy: Corpus, tmp_path: Path) -> None:
    made = build_classifier(dataclasses.replace(TINY, freeze_base=True), toy.label_names, toy.texts, seed=0)
    before = all_weights(made)
    train(made, toy, tmp_path, dataclasses.replace(FAST, epochs=1))
    changed = {name for name, value in all_weights(made).items() if value != before[name]}
    assert changed == {"head.weight", "head.bias"}


def test_training_moves_every_weight_otherwise(toy: Corpus, tmp_path: Path) -> None:
    made = fresh(toy)
    before = all_weights(made)
    train(made, toy, tmp_path, dataclasses.replace(FAST, epochs=1))
    same = {name for name, value in all_weights(made).items() if value == before[name]}
    assert same <= {"encoder.embeddings.token_type_embeddings.weight"}


def test_a_trained_classifier_predicts_in_full_precision(toy: Corpus, tmp_path: Path) -> None:
    """bfloat16 belongs to training: what is measured must be what is saved."""
    made = fresh(toy)
    train(made, toy, tmp_path / "work", dataclasses.replace(FAST, epochs=1), mechanics=Mechanics(bf16=True))
    save_classifier(made, tmp_path / "saved")
    found = made.predict_logits(ODD_TEXTS)
    assert load_classifier(tmp_path / "saved").predict_logits(ODD_TEXTS).tobytes() == found.tobytes()
    assert {tensor.dtype for tensor in made.network.state_dict().values()} == {torch.float32}
    assert not made.network.training


def test_full_precision_is_full_after_a_training_in_bfloat16(toy: Corpus, tmp_path: Path) -> None:
    how = dataclasses.replace(FAST, epochs=1)
    made = {}
    for name, bf16 in (("before", False), ("between", True), ("after", False)):
        made[name] = fresh(toy)
        train(made[name], toy, tmp_path / name, how, mechanics=Mechanics(bf16=bf16))
    assert all_weights(made["after"]) == all_weights(made["before"])


def test_the_same_seed_trains_the_same_weights(toy: Corpus, tmp_path: Path) -> None:
    how = dataclasses.replace(FAST, epochs=1)
    made = [fresh(toy), fresh(toy)]
    for i, each in enumerate(made):
        train(each, toy, tmp_path / str(i), how)
    assert all_weights(made[0]) == all_weights(made[1])


def test_progress_counts_every_step_once(toy: Corpus, tmp_path: Path) -> None:
    steps: list[int] = []
    train(fresh(toy), toy, tmp_path, advance=steps.append)
    assert sum(steps) == FAST.epochs * -(-len(toy.rows("train")) // FAST.batch_size)
    assert set(steps) == {1}


def test_progress_of_a_resumed_training_reaches_the_same_end(toy: Corpus, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(fresh(toy), toy, tmp_path, watch=killed_in(2))
    steps: list[int] = []
    train(fresh(toy), toy, tmp_path, advance=steps.append)
    assert sum(steps) == FAST.epochs * -(-len(toy.rows("train")) // FAST.batch_size)

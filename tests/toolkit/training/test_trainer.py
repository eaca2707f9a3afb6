import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import ODD_TEXTS, TINY, examples, random_logits, rest_slow
from toolkit.config.settings import TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration, softmax
from toolkit.modeling.classifier import Classifier, load_classifier, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.training.dataset import Examples
from toolkit.training.feature_distillation import DistillationLoss
from toolkit.training.losses import UNLABELED
from toolkit.training.trainer import (
    Fit,
    Loop,
    Mechanics,
    WatchEpoch,
    fit,
    last_complete_checkpoint,
    paused_history,
)

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
    data = dataclasses.replace(examples(toy, "train"), teacher_logits=random_logits(len(rows)))
    settings = dataclasses.replace(FAST, epochs=1)
    found = fit(fresh(toy), data, examples(toy, "validation"), settings, 0, tmp_path, DistillationLoss(alpha, 4.0))
    (epoch,) = found.history
    mixed = alpha * epoch["train_soft_loss"] + (1 - alpha) * epoch["train_hard_loss"]
    assert epoch["train_loss"] == pytest.approx(mixed, rel=1e-4)
    assert epoch["train_soft_loss"] != pytest.approx(epoch["train_hard_loss"], rel=0.01)


def half_labeled(toy: Corpus, teacher: np.ndarray) -> Examples:
    """Return training rows with the label of every second row removed."""
    rows = examples(toy, "train")
    labels = np.where(np.arange(len(rows.labels)) % 2 == 0, rows.labels, UNLABELED)
    return Examples(rows.texts, labels, teacher)


@pytest.mark.parametrize("settings", [FAST, dataclasses.replace(FAST, class_weights=True, loss="focal")])
def test_an_unlabeled_row_counts_in_the_batch_and_uses_the_teacher_logits(
    toy: Corpus, tmp_path: Path, settings: TrainingSettings
) -> None:
    """With a learning rate close to 0, the loss is that of the untrained network, computed independently here."""
    rows = examples(toy, "train")
    data = half_labeled(toy, 3 * random_logits(len(rows.texts)))
    assert data.teacher_logits is not None
    still = dataclasses.replace(settings, epochs=1, learning_rate=1e-12, batch_size=len(rows.texts))
    made = build_classifier(dataclasses.replace(TINY, dropout=0.0), toy.label_names, toy.take(toy.rows("train")), 0)
    logits = made.predict_logits(rows.texts)
    known = data.labels != UNLABELED
    chosen = log_softmax(logits)[known, data.labels[known]]
    each = -chosen * ((1 - np.exp(chosen)) ** 2 if settings.loss == "focal" else 1)
    share = 1 / np.bincount(data.labels[known])[data.labels[known]] if settings.class_weights else np.ones(len(each))
    hard = known.mean() * (each * share).sum() / share.sum()
    p, q = log_softmax(data.teacher_logits / 2), log_softmax(logits / 2)
    soft = 4 * (np.exp(p) * (p - q)).sum(axis=1).mean()
    validation = examples(toy, "validation")
    (epoch,) = fit(made, data, validation, still, 0, tmp_path, DistillationLoss(0.3, 2.0), FLOAT32).history
    assert epoch["train_hard_loss"] == pytest.approx(hard, rel=1e-3)
    assert epoch["train_soft_loss"] == pytest.approx(soft, rel=1e-3)
    assert epoch["train_total_loss"] == epoch["train_loss"] == pytest.approx(0.3 * soft + 0.7 * hard, rel=1e-3)


@pytest.mark.filterwarnings("error:invalid value:RuntimeWarning")
@pytest.mark.parametrize("weighted", [False, True])
def test_training_works_without_any_labels(toy: Corpus, tmp_path: Path, weighted: bool) -> None:
    rows = examples(toy, "train")
    logits = 4 * (np.eye(2, dtype=np.float32)[rows.labels] - 0.5)
    unlabeled = Examples(rows.texts, np.full(len(rows.texts), UNLABELED), logits)
    made = fresh(toy)
    settings = dataclasses.replace(FAST, epochs=4, class_weights=weighted)
    found = fit(made, unlabeled, examples(toy, "validation"), settings, 0, tmp_path, DistillationLoss(0.5, 2.0))
    assert [epoch["train_hard_loss"] for epoch in found.history] == [0.0] * len(found.history)
    test = examples(toy, "test")
    assert (made.predict_logits(test.texts).argmax(axis=1) == test.labels).mean() > 0.8


def test_an_unlabeled_row_needs_a_teacher(toy: Corpus, tmp_path: Path) -> None:
    logits = random_logits(len(toy.rows("train")))
    without_teacher = dataclasses.replace(half_labeled(toy, logits), teacher_logits=None)
    for data, loss in (
        (half_labeled(toy, logits), None),
        (without_teacher, None),
        (without_teacher, DistillationLoss(0.5, 2.0)),
    ):
        with pytest.raises(AssertionError):
            fit(fresh(toy), data, examples(toy, "validation"), FAST, 0, tmp_path, loss)


def test_the_best_epoch_of_a_student_has_the_lowest_distillation_loss(toy: Corpus, tmp_path: Path) -> None:
    rows, validation = examples(toy, "train"), examples(toy, "validation")
    data = dataclasses.replace(rows, teacher_logits=random_logits(len(rows.texts)))
    validation = dataclasses.replace(validation, teacher_logits=3 * random_logits(len(validation.texts)))
    settings, made = dataclasses.replace(FAST, epochs=3), fresh(toy)
    found = fit(made, data, validation, settings, 0, tmp_path, DistillationLoss(0.6, 2.0), FLOAT32)
    losses = [epoch["val_loss"] for epoch in found.history]
    assert found.best_epoch == 1 + int(np.argmin(losses))
    logits = made.predict_logits(validation.texts)
    p, q = log_softmax(validation.teacher_logits / 2), log_softmax(logits / 2)
    soft = 4 * (np.exp(p) * (p - q)).sum(axis=1)
    hard = -log_softmax(logits)[np.arange(len(logits)), validation.labels]
    assert (0.6 * soft + 0.4 * hard).mean() == pytest.approx(min(losses), rel=1e-3)


def test_a_teacher_with_weight_zero_changes_nothing(toy: Corpus, tmp_path: Path) -> None:
    rows = examples(toy, "train")
    data = dataclasses.replace(rows, teacher_logits=random_logits(len(rows.texts)))
    settings = dataclasses.replace(FAST, epochs=1)
    made, plain = fresh(toy), fresh(toy)
    fit(made, data, examples(toy, "validation"), settings, 0, tmp_path / "teacher", DistillationLoss(0.0, 2.0))
    train(plain, toy, tmp_path / "plain", settings)
    assert all_weights(made) == all_weights(plain)


def test_a_student_learns_from_its_teacher_even_if_it_contradicts_the_labels(toy: Corpus, tmp_path: Path) -> None:
    data, validation = examples(toy, "train"), examples(toy, "validation")
    contradicting = 4 * (np.eye(2, dtype=np.float32)[1 - data.labels] - 0.5)
    inverted = Examples(validation.texts, 1 - validation.labels)
    made = fresh(toy)
    data = dataclasses.replace(data, teacher_logits=contradicting)
    fit(made, data, inverted, dataclasses.replace(FAST, epochs=4), 0, tmp_path, DistillationLoss(1.0, 2.0))
    test = examples(toy, "test")
    assert (made.predict_logits(test.texts).argmax(axis=1) != test.labels).mean() > 0.8


def test_the_loss_falls_and_the_toy_corpus_is_learned(toy: Corpus, tmp_path: Path) -> None:
    made = fresh(toy)
    found = train(made, toy, tmp_path, dataclasses.replace(FAST, epochs=4))
    losses = [epoch["train_loss"] for epoch in found.history]
    assert losses[-1] < 0.7 * losses[0]
    test = examples(toy, "test")
    assert (made.predict_logits(test.texts).argmax(axis=1) == test.labels).mean() > 0.8


def test_class_weights_raise_the_probability_of_the_rare_label(toy: Corpus, tmp_path: Path) -> None:
    """Texts are uninformative, and one in eight is positive: weights raise the prediction from 1/8 to 1/2."""
    texts = [f"made-up text {i % 5}" for i in range(240)]
    rows = Examples(texts, (np.arange(240) % 8 == 0).astype(np.int64))
    shares = {}
    for weighted in (False, True):
        made = fresh(toy)
        settings = dataclasses.replace(FAST, class_weights=weighted, epochs=2)
        fit(made, rows, rows, settings, 0, tmp_path / str(weighted))
        shares[weighted] = float(softmax(made.predict_logits(texts[:40]))[:, 1].mean())
    assert shares[False] < 0.3
    assert 0.35 < shares[True] < 0.65


def with_inverted_labels(toy: Corpus) -> Examples:
    """Return validation rows with inverted labels: training makes a classifier worse, so an early epoch is best."""
    rows = examples(toy, "validation")
    return Examples(rows.texts, 1 - rows.labels)


def test_the_weights_of_the_best_epoch_are_kept(toy: Corpus, tmp_path: Path) -> None:
    made, validation = fresh(toy), with_inverted_labels(toy)
    settings = dataclasses.replace(FAST, epochs=5)
    found = fit(made, examples(toy, "train"), validation, settings, 0, tmp_path, loop=FLOAT32)
    scores = [epoch["val_macro_f1"] for epoch in found.history]
    assert found.best_epoch == 1 + int(np.argmax(scores))
    assert found.best_epoch < len(scores)
    logits = made.predict_logits(validation.texts)
    metrics = calculate_metrics_with_threshold_exploration(validation.labels, softmax(logits))
    assert metrics["macro_f1"] == pytest.approx(max(scores))
    loss = -log_softmax(logits)[np.arange(len(logits)), validation.labels].mean()
    assert loss == pytest.approx(found.history[found.best_epoch - 1]["val_loss"], rel=1e-4)
    assert loss != pytest.approx(found.history[-1]["val_loss"], rel=0.01)


def test_early_stopping_ends_training(toy: Corpus, tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, epochs=8, early_stopping_patience=2)
    found = fit(fresh(toy), examples(toy, "train"), with_inverted_labels(toy), settings, 0, tmp_path)
    assert len(found.history) == found.best_epoch + 2 < 8


class Killed(Exception):
    pass


def killed_in(epoch: int) -> WatchEpoch:
    def watch(now: int, metrics: dict[str, float]) -> None:
        if now == epoch:
            raise Killed

    return watch


@pytest.mark.parametrize("killed", rest_slow(2, 3))
def test_interrupted_training_resumes_and_ends_with_the_same_weights(toy: Corpus, tmp_path: Path, killed: int) -> None:
    uninterrupted = fresh(toy)
    expected = train(uninterrupted, toy, tmp_path / "uninterrupted")
    with pytest.raises(Killed):
        train(fresh(toy), toy, tmp_path / "interrupted", watch=killed_in(killed))
    resumed = fresh(toy)
    seen: list[int] = []
    found = train(resumed, toy, tmp_path / "interrupted", watch=lambda epoch, _: seen.append(epoch))
    assert seen == list(range(killed, 4))
    assert found == expected
    assert all_weights(resumed) == all_weights(uninterrupted)


@pytest.mark.parametrize("killed", rest_slow(3, 4))
def test_patience_is_restored_after_a_resume(toy: Corpus, tmp_path: Path, killed: int) -> None:
    settings = dataclasses.replace(FAST, epochs=8, early_stopping_patience=3)
    data, validation, loop = examples(toy, "train"), with_inverted_labels(toy), Loop(watch=killed_in(killed))
    expected = fit(fresh(toy), data, validation, settings, 0, tmp_path / "uninterrupted")
    assert len(expected.history) >= killed
    with pytest.raises(Killed):
        fit(fresh(toy), data, validation, settings, 0, tmp_path / "interrupted", loop=loop)
    found = fit(fresh(toy), data, validation, settings, 0, tmp_path / "interrupted")
    assert [epoch["epoch"] for epoch in found.history] == [epoch["epoch"] for epoch in expected.history]
    assert found.best_epoch == expected.best_epoch


@pytest.mark.parametrize("patience", [1, 5], ids=["stopped early", "all epochs"])
def test_completed_training_is_not_repeated(toy: Corpus, tmp_path: Path, patience: int) -> None:
    """The interruption is between the last epoch and the steps after it."""
    settings = dataclasses.replace(FAST, epochs=4, early_stopping_patience=patience)
    first, again = fresh(toy), fresh(toy)
    expected = fit(first, examples(toy, "train"), with_inverted_labels(toy), settings, 0, tmp_path)
    seen: list[int] = []
    steps: list[int] = []
    loop = Loop(watch=lambda epoch, _: seen.append(epoch), advance=steps.append)
    found = fit(again, examples(toy, "train"), with_inverted_labels(toy), settings, 0, tmp_path, loop=loop)
    assert seen == []
    assert found == expected
    assert all_weights(again) == all_weights(first)


@pytest.mark.parametrize("state", [None, "", '{"epoch": 1.0, "glo'])
def test_an_incomplete_checkpoint_is_ignored(toy: Corpus, tmp_path: Path, state: str | None) -> None:
    with pytest.raises(Killed):
        train(fresh(toy), toy, tmp_path, watch=killed_in(2))
    complete = last_complete_checkpoint(tmp_path)
    assert complete is not None
    (tmp_path / "checkpoint-999").mkdir()
    (tmp_path / "checkpoint-999" / "model.safetensors").write_bytes(b"incomplete")
    if state is not None:
        (tmp_path / "checkpoint-999" / "trainer_state.json").write_text(state)
    assert last_complete_checkpoint(tmp_path) == complete
    assert not (tmp_path / "checkpoint-999").exists()
    assert len(train(fresh(toy), toy, tmp_path).history) == FAST.epochs


def test_the_newest_checkpoint_is_the_one_with_the_highest_step(tmp_path: Path) -> None:
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


def test_without_a_frozen_base_training_changes_every_weight(toy: Corpus, tmp_path: Path) -> None:
    made = fresh(toy)
    before = all_weights(made)
    train(made, toy, tmp_path, dataclasses.replace(FAST, epochs=1))
    same = {name for name, value in all_weights(made).items() if value == before[name]}
    assert same <= {"encoder.embeddings.token_type_embeddings.weight"}


def test_a_trained_classifier_predicts_in_full_precision(toy: Corpus, tmp_path: Path) -> None:
    """bfloat16 is used only in training, so that the classifier that is measured equals the saved one."""
    made = fresh(toy)
    train(made, toy, tmp_path / "work", dataclasses.replace(FAST, epochs=1), mechanics=Mechanics(bf16=True))
    save_classifier(made, tmp_path / "saved")
    found = made.predict_logits(ODD_TEXTS)
    assert load_classifier(tmp_path / "saved").predict_logits(ODD_TEXTS).tobytes() == found.tobytes()
    assert {tensor.dtype for tensor in made.network.state_dict().values()} == {torch.float32}
    assert not made.network.training


def test_float32_training_is_not_affected_by_an_earlier_bfloat16_training(toy: Corpus, tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, epochs=1)
    made = {}
    for name, bf16 in (("before", False), ("between", True), ("after", False)):
        made[name] = fresh(toy)
        train(made[name], toy, tmp_path / name, settings, mechanics=Mechanics(bf16=bf16))
    assert all_weights(made["after"]) == all_weights(made["before"])


def test_the_same_seed_trains_the_same_weights(toy: Corpus, tmp_path: Path) -> None:
    settings = dataclasses.replace(FAST, epochs=1)
    made = [fresh(toy), fresh(toy)]
    for i, each in enumerate(made):
        train(each, toy, tmp_path / str(i), settings)
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


def test_a_paused_training_goes_on_to_the_same_weights(toy: Corpus, tmp_path: Path) -> None:
    """Also with a distillation loss, which has the lowest loss select the epoch."""
    data = dataclasses.replace(examples(toy, "train"), teacher_logits=random_logits(len(toy.rows("train"))))
    whole, paused = fresh(toy), fresh(toy)
    loss = DistillationLoss(0.7, 4.0)
    found = fit(whole, data, examples(toy, "validation"), FAST, 0, tmp_path / "a", loss)
    assert paused_history(tmp_path / "b") == []
    fit(paused, data, examples(toy, "validation"), FAST, 0, tmp_path / "b", loss, Loop(pause_after=1))
    assert paused_history(tmp_path / "b") == found.history[:1]
    again = fresh(toy)
    assert fit(again, data, examples(toy, "validation"), FAST, 0, tmp_path / "b", loss) == found
    assert all_weights(again) == all_weights(whole) != all_weights(paused)

"""The one fine-tuning loop: baseline, distillation and every later recovery go through `fit`.

It is transformers' Trainer with what makes an epoch on a CPU cheap: batches of texts that are about
equally long and padded to their own longest, bfloat16 where the processor has it, fused AdamW, denormals
flushed to zero.
"""

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from toolkit.classifier import Classifier
from toolkit.errors import InputError
from toolkit.examples import Collate, Examples, encoded
from toolkit.imitation import Apprentice, Imitation
from toolkit.losses import UNLABELLED, hard_loss, known_loss, soft_loss
from toolkit.metrics import calculate_metrics_with_threshold_exploration, softmax
from toolkit.recipe import TrainingSettings

MACRO_F1, LOSS = "val_macro_f1", "val_loss"
"""What the best epoch is best at. A student's loss on validation rows, teacher and labels together as in training,
tells more than a macro-F1 that jumps with single rows; on labels alone, it rises while a classifier still learns."""
WatchEpoch = Callable[[int, dict[str, float]], None]
"""Called with the epoch, counted from 1, and its losses and validation metrics."""


@dataclass(frozen=True)
class Mechanics:
    """What makes an epoch fast. Only the benchmark of this very thing turns it off."""

    like_lengths: bool = True
    pad_to: int = 0
    bf16: bool = True
    optimiser: str = "adamw_torch_fused"
    flush_denormals: bool = True


@dataclass(frozen=True)
class Fit:
    """What training found. The classifier that was given holds the weights of the best epoch."""

    best_epoch: int
    history: list[dict[str, float]]
    """One entry an epoch: losses and validation metrics."""


def fit(
    classifier: Classifier,
    train: Examples,
    validation: Examples,
    how: TrainingSettings,
    seed: int,
    work: Path,
    imitation: Imitation | None = None,
    watch: WatchEpoch | None = None,
    advance: Callable[[int], None] | None = None,
    mechanics: Mechanics | None = None,
    after_step: Callable[[int], None] | None = None,
    choose_from: int = 1,
) -> Fit:
    """Train `classifier` in place and leave it with the weights of its best epoch on `validation`: that with the best
    macro-F1 or, of a student, the least loss.

    work: folder for checkpoints of the optimiser; training goes on from the last whole one there.
    imitation: how much of `train.teacher_logits` is learned, and what else of a teacher.
    advance: called with the number of steps done since the last call, for a progress bar.
    after_step: called with the number of steps done, before the first one of this process and after each.
    choose_from: the first epoch, counted from 1, that may be the best.
    """
    assert imitation is None or train.teacher_logits is not None, "a teacher that says nothing"
    assert imitation is not None or UNLABELLED not in train.labels, "nothing teaches a text without a label"
    inside = None if imitation is None else imitation.inside
    mechanics = mechanics or Mechanics()
    torch.set_flush_denormal(mechanics.flush_denormals)
    checkpoint = last_whole_checkpoint(work)
    best = MACRO_F1 if imitation is None else LOSS
    arguments = _arguments(how, len(train.texts), seed, work, mechanics, best)
    if checkpoint is not None and _had_stopped(checkpoint):
        arguments.max_steps = _state(checkpoint)["global_step"]  # nothing is left to do but to take the best epoch
    trainer = _Trainer(
        classifier.network if inside is None else Apprentice(classifier.network, inside, seed),
        arguments,
        loss=loss_of(how, train.labels, len(classifier.labels), imitation),
        data_collator=Collate(classifier.pad_id, mechanics.pad_to),
        train_dataset=encoded(classifier, train),
        eval_dataset=encoded(classifier, validation),
        compute_metrics=lambda p: _validation_metrics(p.predictions, p.label_ids),
        callbacks=[EarlyStoppingCallback(how.early_stopping_patience), _Watch(watch, advance, after_step)],
        choose_from=choose_from,
    )
    trainer.remove_callback(PrinterCallback)
    if inside is not None:
        inside.teacher.network.to(arguments.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mtime may not be reliable")  # then it goes by step, as it should
        trainer.train(resume_from_checkpoint=checkpoint)
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # or it would predict in bfloat16
    classifier.network.to("cpu").eval()
    if inside is not None:
        inside.teacher.network.to("cpu")
    history = _history(trainer.state.log_history)
    sign = -1 if best == LOSS else 1
    eligible = [epoch for epoch in history if epoch["epoch"] >= choose_from]
    kept = max(eligible, key=lambda epoch: (sign * epoch[best], -epoch["epoch"]))
    return Fit(int(kept["epoch"]), history)


def refuse_missing_device(device: str) -> None:
    """Raises InputError for a device that is not here."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device that torch can use is here; give --device cpu")


def steps_of(rows: int, how: TrainingSettings) -> int:
    """Training steps if no epoch is saved by early stopping."""
    return -(-rows // how.batch_size) * how.epochs


def last_whole_checkpoint(work: Path) -> str | None:
    """The newest optimiser checkpoint that was written to its end; half ones are removed."""
    whole = []
    for folder in work.glob("checkpoint-*"):
        try:
            _state(folder)  # the Trainer writes it last
            whole.append(folder)
        except (FileNotFoundError, json.JSONDecodeError):
            shutil.rmtree(folder)
    return str(max(whole, key=lambda folder: int(folder.name.split("-")[1]))) if whole else None


def _state(checkpoint: str | Path) -> dict[str, Any]:
    return json.loads((Path(checkpoint) / "trainer_state.json").read_text("utf-8"))


def _had_stopped(checkpoint: str) -> bool:
    """Whether training was over, by its last epoch or by patience, when `checkpoint` was written."""
    control = _state(checkpoint)["stateful_callbacks"].get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop"))


Loss = Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def loss_of(how: TrainingSettings, labels: np.ndarray, count: int, imitation: Imitation | None) -> Loss:
    """Named parts of the loss of a network's output on a batch; "loss" is what is minimised."""
    labelled = labels[labels != UNLABELLED]
    against_labels = hard_loss if len(labelled) == len(labels) else known_loss
    weights = None
    if how.class_weights and len(labelled):
        share = np.bincount(labelled, minlength=count) / len(labelled)
        weights = torch.tensor(1 / (count * share), dtype=torch.float32)

    def parts(output: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        logits = output["logits"].float()
        tensor = None if weights is None else weights.to(logits.device)
        hard = against_labels(logits, batch["labels"], how.loss, tensor)
        if imitation is None or "teacher_logits" not in batch:
            return {"loss": hard}
        soft = soft_loss(logits, batch["teacher_logits"], imitation.temperature)
        total = imitation.alpha * soft + (1 - imitation.alpha) * hard
        weighed = {} if imitation.inside is None else imitation.inside.weights
        others = {name: output[name] for name in weighed if name in output}  # a network that validates has none
        for name, value in others.items():
            total = total + weighed[name] * value
        return {"loss": total, "total_loss": total, "soft_loss": soft, "hard_loss": hard, **others}

    return parts


def _arguments(
    how: TrainingSettings, rows: int, seed: int, work: Path, mechanics: Mechanics, best: str
) -> TrainingArguments:
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # the Trainer leaves that of an earlier training behind
    by_length: dict[str, Any] = {"group_by_length": True}
    if "train_sampling_strategy" in {field.name for field in fields(TrainingArguments)}:  # since transformers 5
        by_length = {"train_sampling_strategy": "group_by_length"}
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=how.batch_size,
        per_device_eval_batch_size=2 * how.batch_size,
        learning_rate=how.learning_rate,
        num_train_epochs=how.epochs,
        weight_decay=how.weight_decay,
        warmup_steps=math.ceil(how.warmup_ratio * steps_of(rows, how)),
        lr_scheduler_type=how.scheduler,
        max_grad_norm=how.gradient_clip_norm,
        optim=mechanics.optimiser,
        bf16=mechanics.bf16 and has_bf16(how.device),
        **(by_length if mechanics.like_lengths else {}),
        use_cpu=how.device == "cpu" or not torch.cuda.is_available(),
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=2,  # the best and the last: with 1 the last would go in the end, and a resume train anew
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # or patience would be counted from 0 after a resume
        metric_for_best_model=best.removeprefix("val_"),
        greater_is_better=best != LOSS,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
    )


def has_bf16(device: str) -> bool:
    """Whether the training device computes in bfloat16 rather than emulating it."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class _Trainer(Trainer):
    """The Trainer with this project's loss, whose parts it logs."""

    def __init__(
        self, model: nn.Module, arguments: TrainingArguments, loss: Loss, choose_from: int, **others: Any
    ) -> None:
        super().__init__(model, arguments, **others)
        self.loss = loss
        self.choose_from = choose_from
        self.parts: dict[str, list[float]] = {}

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        output = model(inputs["input_ids"], inputs["attention_mask"])
        parts = self.loss(output, inputs)
        if model.training:
            for name, value in parts.items():
                self.parts.setdefault(name, []).append(float(value.detach()))
        return (parts["loss"], {"logits": output["logits"].float()}) if return_outputs else parts["loss"]

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        if round(self.state.epoch or 0) < self.choose_from:
            return False
        return bool(super()._determine_best_metric(metrics, trial))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self.parts:
            logs = logs | {f"train_{name}": float(np.mean(values)) for name, values in self.parts.items()}
            self.parts = {}
        super().log(logs, *args, **kwargs)


class _Watch(TrainerCallback):
    """Tells the caller of every step and every validated epoch."""

    def __init__(
        self,
        watch: WatchEpoch | None,
        advance: Callable[[int], None] | None,
        after_step: Callable[[int], None] | None,
    ) -> None:
        self.watch, self.advance, self.after_step, self.seen = watch, advance, after_step, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.after_step is not None:  # a resumed training has its weights by now
            self.after_step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.after_step is not None:
            self.after_step(state.global_step)
        if self.advance is not None:
            self.advance(state.global_step - self.seen)
        self.seen = state.global_step

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.watch is not None:
            latest = _history(state.log_history)[-1]
            self.watch(int(latest["epoch"]), latest)


def _validation_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return calculate_metrics_with_threshold_exploration(labels, softmax(logits))


def _history(log: list[dict[str, float]]) -> list[dict[str, float]]:
    """One entry an epoch from the Trainer's log: `train_…` losses and `val_…` metrics."""
    epochs: dict[int, dict[str, float]] = {}
    for entry in log:
        epoch = round(entry.get("epoch", 0))
        kept = {name: value for name, value in entry.items() if name.startswith("train_") and "loss" in name}
        kept |= {f"val_{name[5:]}": value for name, value in entry.items() if name.startswith("eval_")}
        if "learning_rate" in entry or "eval_loss" in entry:
            epochs.setdefault(epoch, {"epoch": epoch}).update(kept)
    timing = ("val_runtime", "val_samples_per_second", "val_steps_per_second")
    return [{k: v for k, v in entry.items() if k not in timing} for _, entry in sorted(epochs.items())]

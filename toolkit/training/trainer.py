"""The only fine-tuning loop: baseline, distillation and recovery after pruning all call `fit`.

It is the Trainer of transformers with the options that make an epoch fast on a CPU: batches of texts of similar
length, padded to the longest text of the batch, bfloat16 where the processor supports it, fused AdamW, and denormals
flushed to zero. Under torchrun, `toolkit.training.processes` spreads each batch over the processes.
"""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, TrainingArguments

from toolkit.config.settings import TrainingSettings
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration, softmax
from toolkit.modeling.classifier import Classifier
from toolkit.training.dataset import Collate, Examples, encoded
from toolkit.training.feature_distillation import DistillationLoss, Loss, StudentWithTeacher, loss_of
from toolkit.training.losses import UNLABELED
from toolkit.training.processes.launch import as_one_of, copy_weights, on_all, processes
from toolkit.training.processes.trainer import SpreadTrainer
from toolkit.training.stopping import LOSS, MACRO_F1, ToBeat
from toolkit.utils.errors import InputError
from toolkit.utils.scratch import remove_folder

WatchEpoch = Callable[[int, dict[str, float]], None]
"""Called with the epoch, counted from 1, and its losses and validation metrics."""


@dataclass(frozen=True)
class Mechanics:
    """Optimizations of the training loop. Only the benchmark of training speed turns them off."""

    like_lengths: bool = True
    """Batch texts of similar length."""
    pad_to: int = 0
    """Minimum length in tokens to which batches are padded."""
    bf16: bool = True
    """Use bfloat16 if the device supports it."""
    optimizer: str = "adamw_torch_fused"
    flush_denormals: bool = True


@dataclass(frozen=True)
class Loop:
    """Callbacks and low-level options of the training loop."""

    watch: WatchEpoch | None = None
    """Called after each epoch with its number and its losses and validation metrics."""
    advance: Callable[[int], None] | None = None
    """Called with the number of steps since the last call, for a progress bar."""
    after_step: Callable[[int], None] | None = None
    """Called with the number of steps done so far: once when training starts or resumes, then after each step."""
    choose_from: int = 1
    """First epoch, counted from 1, that may be selected as the best."""
    to_beat: ToBeat | None = None
    """Training stops early if it has no prospect of reaching this."""
    pause_after: int | None = None
    """Epoch after which training pauses; another `fit` in the same folder goes on from there."""
    mechanics: Mechanics = Mechanics()
    """Optimizations of the loop."""


@dataclass(frozen=True)
class Fit:
    """Result of `fit`."""

    best_epoch: int
    history: list[dict[str, float]]
    """Losses and validation metrics of each epoch."""


def fit(
    classifier: Classifier,
    train: Examples,
    validation: Examples,
    settings: TrainingSettings,
    seed: int,
    work: Path,
    distillation_loss: DistillationLoss | None = None,
    loop: Loop = Loop(),
) -> Fit:
    """Train `classifier` in place and restore the weights of its best epoch.

    The best epoch has the highest macro-F1 on `validation` or, for a student, the lowest loss.

    work: folder for optimizer checkpoints; training resumes from the last complete one.
    distillation_loss: weights of the teacher's logits (`train.teacher_logits`) and features; None without a teacher.
    """
    assert distillation_loss is None or train.teacher_logits is not None, "distillation needs teacher logits"
    assert distillation_loss is not None or UNLABELED not in train.labels, "unlabeled texts need a teacher"
    # Fake quantization cannot be sent to another process.
    several = processes() > 1 and not any(map(parametrize.is_parametrized, classifier.network.modules()))
    resumed = last_complete_checkpoint(work)
    job = _Training(classifier, train, validation, settings, seed, work, distillation_loss, resumed)
    if several:
        on_all(_join, job, replace(loop, watch=None, advance=None, after_step=loop.after_step and _nothing))
    with as_one_of(several):
        return _fit(job, loop)


@dataclass(frozen=True)
class _Training:
    """What every process of a training gets; see `fit`."""

    classifier: Classifier
    train: Examples
    validation: Examples
    settings: TrainingSettings
    seed: int
    work: Path
    distillation_loss: DistillationLoss | None
    checkpoint: str | None


def _nothing(step: int) -> None:
    """Stand for the `after_step` of rank 0, which sends the weights that it changes."""


def _join(job: _Training, loop: Loop) -> None:
    """Train together with rank 0."""
    with as_one_of(True):
        _fit(job, loop)


def _fit(job: _Training, loop: Loop) -> Fit:
    classifier, settings, checkpoint = job.classifier, job.settings, job.checkpoint
    features = None if job.distillation_loss is None else job.distillation_loss.features
    best = MACRO_F1 if job.distillation_loss is None else LOSS
    arguments = _arguments(settings, len(job.train.texts), job.seed, job.work, loop.mechanics, best)
    if checkpoint is not None and _had_stopped(checkpoint):
        arguments.max_steps = _state(checkpoint)["global_step"]  # no step is left: only load the best epoch
    trainer = _Trainer(
        classifier.network if features is None else StudentWithTeacher(classifier.network, features, job.seed),
        arguments,
        loss=loss_of(settings, job.train.labels, len(classifier.labels), job.distillation_loss),
        data_collator=Collate(classifier.pad_id, loop.mechanics.pad_to),
        train_dataset=encoded(classifier, job.train),
        eval_dataset=encoded(classifier, job.validation),
        compute_metrics=lambda p: _validation_metrics(p.predictions, p.label_ids),
        callbacks=[EarlyStoppingCallback(settings.early_stopping_patience), _LoopCallback(loop)],
        choose_from=loop.choose_from,
    )
    trainer.remove_callback(PrinterCallback)
    if features is not None:
        features.teacher.network.to(arguments.device)
    with warnings.catch_warnings(), _flushed_denormals(loop.mechanics.flush_denormals):
        warnings.filterwarnings("ignore", message="mtime may not be reliable")  # checkpoints are sorted by step instead
        trainer.train(resume_from_checkpoint=checkpoint)
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # otherwise it predicts in bfloat16
    classifier.network.to("cpu").eval()
    if features is not None:
        features.teacher.network.to("cpu")
    history = _history(trainer.state.log_history)
    sign = -1 if best == LOSS else 1
    eligible = [epoch for epoch in history if epoch["epoch"] >= loop.choose_from]
    selected = max(eligible, key=lambda epoch: (sign * epoch[best], -epoch["epoch"]))
    return Fit(int(selected["epoch"]), history)


@contextmanager
def _flushed_denormals(flush: bool) -> Iterator[None]:
    """Flush denormals to zero inside the block only: OpenVINO fails in a process that flushes them."""
    torch.set_flush_denormal(flush)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def refuse_missing_device(device: str) -> None:
    """Raise InputError if `device` is not available on this machine."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no usable CUDA device; use --device cpu")


def steps_of(rows: int, settings: TrainingSettings) -> int:
    """Return the number of training steps without early stopping."""
    return -(-rows // settings.batch_size) * settings.epochs


def last_complete_checkpoint(work: Path) -> str | None:
    """Return the newest complete optimizer checkpoint in `work`, or None; remove incomplete ones."""
    complete = []
    for folder in work.glob("checkpoint-*"):
        try:
            _state(folder)  # the Trainer writes this file last
            complete.append(folder)
        except (FileNotFoundError, ValueError):
            remove_folder(folder)
    return str(max(complete, key=lambda folder: int(folder.name.split("-")[1]))) if complete else None


def _state(checkpoint: str | Path) -> dict[str, Any]:
    return json.loads((Path(checkpoint) / "trainer_state.json").read_text("utf-8"))


def _had_stopped(checkpoint: str) -> bool:
    """Return whether training had ended, after its last epoch or by early stopping, when `checkpoint` was written."""
    control = _state(checkpoint)["stateful_callbacks"].get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop"))


def _arguments(
    settings: TrainingSettings, rows: int, seed: int, work: Path, mechanics: Mechanics, best: str
) -> TrainingArguments:
    assert settings.learning_rate != "auto", "the stage finds the learning rate"
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # reset what an earlier Trainer in this process has set
    by_length: dict[str, Any] = {"group_by_length": True}
    if "train_sampling_strategy" in {field.name for field in fields(TrainingArguments)}:  # since transformers 5
        by_length = {"train_sampling_strategy": "group_by_length"}
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        weight_decay=settings.weight_decay,
        warmup_steps=math.ceil(settings.warmup_ratio * steps_of(rows, settings)),
        lr_scheduler_type=settings.scheduler,
        max_grad_norm=settings.gradient_clip_norm,
        optim=mechanics.optimizer,
        bf16=mechanics.bf16 and has_bf16(settings.device),
        **(by_length if mechanics.like_lengths else {}),
        use_cpu=settings.device == "cpu" or not torch.cuda.is_available(),
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=2,  # best and last; with 1, the last may be deleted and a resumed run would train again
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # otherwise patience restarts at 0 after a resume
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
    """Return whether the training device supports bfloat16 natively, without emulation."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class _Trainer(SpreadTrainer):
    """The Trainer with the loss of `loss_of`; logs each part of it."""

    def __init__(
        self, model: nn.Module, arguments: TrainingArguments, loss: Loss, choose_from: int, **options: Any
    ) -> None:
        super().__init__(model, arguments, loss, **options)
        self.choose_from = choose_from
        self.parts: dict[str, list[float]] = {}

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        output = model(inputs["input_ids"], inputs["attention_mask"])
        output, targets = self.whole(output, inputs, model.training)
        parts = self.loss(output, targets)
        if model.training:
            for name, value in parts.items():
                self.parts.setdefault(name, []).append(float(value.detach()))
        loss = self.backward_loss(parts["loss"])
        return (loss, {"logits": output["logits"].float()}) if return_outputs else loss

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        if round(self.state.epoch or 0) < self.choose_from:
            return False
        return bool(super()._determine_best_metric(metrics, trial))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self.parts:
            logs = logs | {f"train_{name}": float(np.mean(values)) for name, values in self.parts.items()}
            self.parts = {}
        super().log(logs, *args, **kwargs)


class _LoopCallback(TrainerCallback):
    """Calls the callbacks of a `Loop` after steps and validated epochs."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.steps_reported = loop, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._after_step(state.global_step, kwargs["model"])  # resumed weights are loaded by now

    def _after_step(self, step: int, model: nn.Module) -> None:
        if self.loop.after_step is not None:
            self.loop.after_step(step)
            copy_weights(model)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._after_step(state.global_step, kwargs["model"])
        if self.loop.advance is not None:
            self.loop.advance(state.global_step - self.steps_reported)
        self.steps_reported = state.global_step

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.loop.watch is not None:
            latest = _history(state.log_history)[-1]
            self.loop.watch(int(latest["epoch"]), latest)
        to_beat, history = self.loop.to_beat, _history(state.log_history)
        if to_beat is not None and to_beat.is_out_of_reach(history, int(args.num_train_epochs)):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # After the checkpoint is written, so that it does not look like one of a training that has ended.
        if self.loop.pause_after is not None and round(state.epoch) >= self.loop.pause_after:
            control.should_training_stop = True


def paused_history(work: Path) -> list[dict[str, float]]:
    """Return the losses and metrics of the epochs whose training in `work` can go on; none if it is not begun."""
    checkpoint = last_complete_checkpoint(work)
    return [] if checkpoint is None else _history(_state(checkpoint)["log_history"])


def _validation_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return calculate_metrics_with_threshold_exploration(labels, softmax(logits))


def _history(log: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the `train_…` losses and `val_…` metrics of each epoch from the log of the Trainer."""
    epochs: dict[int, dict[str, float]] = {}
    for entry in log:
        epoch = round(entry.get("epoch", 0))
        values = {name: value for name, value in entry.items() if name.startswith("train_") and "loss" in name}
        values |= {f"val_{name[5:]}": value for name, value in entry.items() if name.startswith("eval_")}
        if "learning_rate" in entry or "eval_loss" in entry:
            epochs.setdefault(epoch, {"epoch": epoch}).update(values)
    timing = ("val_runtime", "val_samples_per_second", "val_steps_per_second")
    # Sorted, since the Trainer sorts the log of the epochs before a resume.
    return [{k: v for k, v in sorted(entry.items()) if k not in timing} for _, entry in sorted(epochs.items())]

"""Unstructured pruning: single weights become zeros, at once or bit by bit, and stay zeros while the rest learns."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toolkit.config.settings import PruningSettings
from toolkit.modeling.classifier import Classifier, like_lengths, pad
from toolkit.modeling.tokenizer import encode
from toolkit.pruning.importance import BATCH
from toolkit.pruning.masks import (
    Gradual,
    Growth,
    apply_masks,
    counted_sparsity,
    hold,
    magnitude_scores,
    prunable,
    sparsest,
    wanda_scores,
    zstd_size,
)
from toolkit.pruning.recovery import Recovery
from toolkit.training.dataset import Examples


def prune_unstructured(
    classifier: Classifier, calibration: Examples, pruning: PruningSettings, steps_per_epoch: int, recover: Recovery
) -> dict[str, Any]:
    """Zero weights of `classifier`, in place, and let the others recover; returns how that went.

    calibration: texts whose inputs Wanda weighs weights by.
    """
    network = classifier.network
    linears = prunable(network, pruning.prune_layers)
    if pruning.prune_method == "gradual":
        start, end = (steps_per_epoch * epoch for epoch in (pruning.prune_start_epoch, pruning.prune_end_epoch))
        growth = Growth(pruning.prune_sparsity, pruning.prune_schedule, start, end, pruning.prune_frequency)
        epochs = pruning.prune_end_epoch + (pruning.fine_tune_epochs if pruning.fine_tune_after_prune else 0)
        growing = _grown_while_training(network, list(linears), growth)
        found = [recover(classifier, epochs, "gradual", growing, pruning.prune_end_epoch)]
        return {"recovery": found, "sparsity": _zeros(linears)}
    wanda = pruning.prune_method == "wanda"
    scores = wanda_scores(network, _batches(classifier, calibration), linears) if wanda else magnitude_scores(linears)
    masks = sparsest(scores, pruning.prune_sparsity, per_row=wanda)
    apply_masks(network, masks)
    recovery = []
    if pruning.fine_tune_after_prune:
        recovery.append(recover(classifier, pruning.fine_tune_epochs, "masked", hold(network, masks)))
    return {"recovery": recovery, "sparsity": _zeros(linears)}


def _zeros(linears: Mapping[str, nn.Linear]) -> float:
    """The share of exact zeros in the weights."""
    weights = [linear.weight for linear in linears.values()]
    return float(sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights))


def counted(file: Path, before: Path, network: nn.Module, pruning: PruningSettings) -> dict[str, Any]:
    """Zeros counted in the weights `file` that were saved; the size of it and of the one `before`, both compressed."""
    names = prunable(network, pruning.prune_layers)
    return {
        "sparsity": counted_sparsity(file, names),
        "zstd_size_bytes": zstd_size(file),
        "zstd_size_bytes_before": zstd_size(before),
    }


def _grown_while_training(network: nn.Module, names: list[str], growth: Growth) -> Callable[[int], None]:
    """`Gradual.after_step`, of masks that are first taken when training begins or goes on: from its weights then."""
    masks: list[Gradual] = []

    def after_step(step: int) -> None:
        if not masks:
            masks.append(Gradual(network, names, growth))
        masks[0].after_step(step)

    return after_step


def _batches(classifier: Classifier, examples: Examples) -> list[tuple[torch.Tensor, torch.Tensor]]:
    encoded = encode(classifier.tokenizer, examples.texts)
    return [pad([encoded[i] for i in chosen], classifier.pad_id) for chosen in like_lengths(encoded, BATCH)]

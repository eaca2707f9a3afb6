"""Unstructured pruning: set single weights to zero, at once or gradually, and keep them zero during recovery."""

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
    """Prune `classifier` in place and fine-tune the remaining weights; return sparsity and recovery history.

    calibration: texts for the input norms of Wanda.
    """
    network = classifier.network
    linears = prunable(network, pruning.prune_layers)
    if pruning.prune_method == "gradual":
        start, end = (steps_per_epoch * epoch for epoch in (pruning.prune_start_epoch, pruning.prune_end_epoch))
        growth = Growth(pruning.prune_sparsity, pruning.prune_schedule, start, end, pruning.prune_frequency)
        epochs = pruning.prune_end_epoch + (pruning.fine_tune_epochs if pruning.fine_tune_after_prune else 0)
        after_step = _gradual_pruning(network, list(linears), growth)
        recovery = [recover(classifier, epochs, "gradual", after_step, pruning.prune_end_epoch)]
        return {"recovery": recovery, "sparsity": _zeros(linears)}
    wanda = pruning.prune_method == "wanda"
    scores = wanda_scores(network, _batches(classifier, calibration), linears) if wanda else magnitude_scores(linears)
    masks = sparsest(scores, pruning.prune_sparsity, per_row=wanda)
    apply_masks(network, masks)
    recovery = []
    if pruning.fine_tune_after_prune:
        recovery.append(recover(classifier, pruning.fine_tune_epochs, "masked", hold(network, masks)))
    return {"recovery": recovery, "sparsity": _zeros(linears)}


def _zeros(linears: Mapping[str, nn.Linear]) -> float:
    """Return the share of exact zeros in the weights."""
    weights = [linear.weight for linear in linears.values()]
    return float(sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights))


def sparsity_and_size(file: Path, before: Path, network: nn.Module, pruning: PruningSettings) -> dict[str, Any]:
    """Return the sparsity of the saved weights `file`, and its compressed size and that of `before`, in bytes."""
    names = prunable(network, pruning.prune_layers)
    return {
        "sparsity": counted_sparsity(file, names),
        "zstd_size_bytes": zstd_size(file),
        "zstd_size_bytes_before": zstd_size(before),
    }


def _gradual_pruning(network: nn.Module, names: list[str], growth: Growth) -> Callable[[int], None]:
    """Return `Gradual.after_step` with masks created at the first call, when a resumed training has its weights."""
    masks: list[Gradual] = []

    def after_step(step: int) -> None:
        if not masks:
            masks.append(Gradual(network, names, growth))
        masks[0].after_step(step)

    return after_step


def _batches(classifier: Classifier, examples: Examples) -> list[tuple[torch.Tensor, torch.Tensor]]:
    encoded = encode(classifier.tokenizer, examples.texts)
    return [pad([encoded[i] for i in chosen], classifier.pad_id) for chosen in like_lengths(encoded, BATCH)]

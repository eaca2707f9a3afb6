"""Masks for unstructured pruning: set single weights to zero and keep them zero during training.

The shape of the network does not change, but its file compresses better. A mask is a boolean tensor with the shape of
the weight of a linear layer: True is kept, False is zero. Masks come from scores, one per weight; the weights with the
lowest scores are pruned. Masks are not stored separately: they are read from the zeros of the weights.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from toolkit.config.settings import Part, Schedule
from toolkit.modeling.architecture import anatomy

Tensors = Mapping[str, torch.Tensor]
"""Scores or masks (out, in), keyed by the names of the linear layers."""

ATTENTION, FFN = ("query", "key", "value", "context"), ("into", "out")
"""The linear layers of an encoder layer, by their field names in `toolkit.modeling.architecture.Paths`."""
ZSTD_LEVEL = 19
"""The highest level of the zstd command line without --ultra."""


def prunable(network: nn.Module, part: Part) -> dict[str, nn.Linear]:
    """Return the linear layers of `part`, keyed by their names in `network.named_modules()` and in that order.

    attention: query, key, value and output projections of each encoder layer; ffn: its two feed-forward layers;
    encoder: both; all: every linear layer of the network, including head and embedding projection.
    Embeddings, norms and biases are never pruned. A layer shared by several passes (ALBERT) is listed once.
    Raises: InputError for an unsupported architecture.
    """
    parts = {"attention": ATTENTION, "ffn": FFN}.get(part, ATTENTION + FFN)
    inside = {layer.linear(each) for layer in anatomy(network).layers for each in parts}
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    return {name: linear for name, linear in linears.items() if part == "all" or linear in inside}


def magnitude_scores(linears: Mapping[str, nn.Linear]) -> dict[str, torch.Tensor]:
    """Return |W|, to be ranked over all matrices together, so that their sparsity may differ."""
    return {name: linear.weight.detach().abs() for name, linear in linears.items()}


def wanda_scores(
    network: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], linears: Mapping[str, nn.Linear]
) -> dict[str, torch.Tensor]:
    """Return |W_ij| · ‖X_j‖₂ (Sun et al. 2023), to be ranked within each output row i: all rows get the same sparsity.

    ‖X_j‖₂ is the norm of input feature j over all tokens of `batches`, padding excluded; a layer after the pooling has
    one input vector per text. All calls of a shared layer (ALBERT) are summed.
    batches: input ids and attention mask, both (batch, tokens).
    """
    device, was_training = next(network.parameters()).device, network.training
    network.eval()  # no dropout in the measured inputs
    try:
        with torch.no_grad(), _squares(linears) as (squares, real):
            for ids, mask in batches:
                real["tokens"] = mask.to(device).bool()
                network(ids.to(device), mask.to(device))
    finally:
        network.train(was_training)
    return {
        n: linear.weight.detach().abs() * squares[n].sqrt().to(linear.weight.dtype) for n, linear in linears.items()
    }


@contextmanager
def _squares(linears: Mapping[str, nn.Linear]) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Sum the squares of each input feature (in,) while the context is open; all hooks are removed at its end.

    Yields: the sums by name, and a dict whose "tokens" the caller sets to the mask (batch, tokens) of each batch.
    """
    found = {
        name: torch.zeros(linear.in_features, dtype=torch.float64, device=linear.weight.device)
        for name, linear in linears.items()
    }
    real: dict[str, torch.Tensor] = {}

    def count(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            seen = inputs[0] if inputs[0].dim() == 2 else inputs[0][real["tokens"]]  # (texts or real tokens, in)
            found[name] += seen.double().square().sum(0)

        return hook

    handles = [linear.register_forward_hook(count(name)) for name, linear in linears.items()]
    try:
        yield found, real
    finally:
        for handle in handles:
            handle.remove()


def sparsest(scores: Tensors, sparsity: float, per_row: bool) -> dict[str, torch.Tensor]:
    """Return masks that drop the lowest scores: exactly round(sparsity · n) of n, over all matrices or in each row.

    Among equal scores, the first ones are dropped first.
    """
    if per_row:
        return {name: _highest(each, round(sparsity * each.shape[1])) for name, each in scores.items()}
    together = torch.cat([each.flatten() for each in scores.values()])
    kept = _highest(together.unsqueeze(0), round(sparsity * len(together)))[0]
    parts = kept.split([each.numel() for each in scores.values()])
    return {name: part.view_as(each) for (name, each), part in zip(scores.items(), parts, strict=True)}


def _highest(scores: torch.Tensor, dropped: int) -> torch.Tensor:
    """Return the mask (rows, n) that drops the `dropped` lowest scores of each row."""
    if dropped == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    limit = scores.kthvalue(dropped, dim=1, keepdim=True).values  # (rows, 1), the highest score that is dropped
    tied = scores == limit
    tied_dropped = dropped - (scores < limit).sum(1, keepdim=True)  # (rows, 1), number of tied scores to drop
    return (scores > limit) | (tied & (tied.cumsum(1, dtype=torch.int32) > tied_dropped))


def scheduled_sparsity(final: float, schedule: Schedule, progress: float) -> float:
    """Return the sparsity at `progress` (clipped to 0 to 1) on the schedule from 0 to `final`.

    linear: constant rate; cubic: fast at first, while many weights are redundant (Zhu & Gupta 2017); exponential: the
    share of remaining weights falls by a constant factor per unit of time.
    """
    t = min(max(progress, 0.0), 1.0)
    if schedule == "linear":
        return final * t
    return final * (1 - (1 - t) ** 3) if schedule == "cubic" else 1 - (1 - final) ** t


def apply_masks(network: nn.Module, masks: Tensors) -> None:
    """Set the weights that `masks` drop to zero, in place."""
    for name, mask in masks.items():
        weight = _weight(network, name)
        weight.masked_fill_(~mask.to(weight.device), 0)  # a product would leave negative zeros, which compress worse


def masks_of(network: nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the masks of the current weights: False where a weight is zero."""
    return {name: _weight(network, name) != 0 for name in names}


def _weight(network: nn.Module, name: str) -> torch.Tensor:
    """Return the weight (out, in), detached; in-place changes apply to the network."""
    linear = network.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear.weight.detach()


@dataclass(frozen=True)
class Growth:
    """Schedule of gradual pruning: at which training steps the sparsity rises, and to what value."""

    final: float
    """Sparsity from `end_step` on."""
    schedule: Schedule
    start_step: int
    end_step: int
    frequency: int
    """Steps between two rises."""

    def due(self, step: int) -> float | None:
        """Return the sparsity due after `step`; None if the masks do not change."""
        if step == self.end_step:
            return self.final
        since = step - self.start_step
        if not 0 <= since < self.end_step - self.start_step or since % self.frequency:
            return None
        return scheduled_sparsity(self.final, self.schedule, since / (self.end_step - self.start_step))


class Gradual:
    """Magnitude masks whose sparsity rises during training (Zhu & Gupta 2017); a pruned weight stays pruned.

    Weights that are zero at construction are masked. To resume training, construct it after the weights are loaded.
    """

    def __init__(self, network: nn.Module, names: Iterable[str], growth: Growth) -> None:
        self.network, self.growth = network, growth
        self.masks = masks_of(network, names)

    def after_step(self, step: int) -> None:
        """Update the masks if due, and set masked weights back to zero. step: counted from 1."""
        due = self.growth.due(step)
        if due is not None:
            # The optimizer has changed masked weights; a score of -1 makes sure that they are dropped again.
            scores = {n: _weight(self.network, n).abs().where(mask, -1.0) for n, mask in self.masks.items()}
            updated = sparsest(scores, due, per_row=False)
            self.masks = {name: mask & updated[name] for name, mask in self.masks.items()}
        apply_masks(self.network, self.masks)


def hold(network: nn.Module, masks: Tensors) -> Callable[[int], None]:
    """Return a callback for after each optimizer step that keeps the weights dropped by `masks` at zero."""
    return lambda step: apply_masks(network, masks)


def counted_sparsity(file: Path, names: Iterable[str]) -> float:
    """Return the share of exact zeros in the weights of the linear layers `names`, read from a safetensors file."""
    with safe_open(file, framework="np") as stored:
        weights = [stored.get_tensor(f"{name}.weight") for name in names]
    return float(sum((weight == 0).sum() for weight in weights) / sum(weight.size for weight in weights))


def zstd_size(file: Path) -> int:
    """Return the size of `file` in bytes after compression with zstd at ZSTD_LEVEL, as for a download."""
    import pyarrow as pa

    return int(pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(file.read_bytes()).size)

"""Zero single weights of a network and keep them zero while it trains; its shape stays, its file compresses better.

A mask of a linear map is a boolean tensor of the shape of its weight: True stays, False is zero. Masks come from
scores, one a weight, the lowest of which go. They are stored nowhere but in the zeros of the weights.
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
from toolkit.modeling.architecture import architecture_of

Tensors = Mapping[str, torch.Tensor]
"""Scores or masks (out, in), under the names of the linear maps."""

ATTENTION, FFN = ("query", "key", "value", "context"), ("into", "out")
"""The linear maps of a layer, as `toolkit.modeling.architecture.LayerPaths` calls them."""
ZSTD_LEVEL = 19
"""The highest without --ultra on the command line of zstd."""


def prunable(network: nn.Module, part: Part) -> dict[str, nn.Linear]:
    """The linear maps of `part`, under their names in `network.named_modules()`, in that order.

    attention: query, key, value and context maps of each layer of the encoder; ffn: the maps into and out of its
    neurons; encoder: both; all: those and every other linear map (head, projection of the embeddings, …).
    Never embeddings, norms or biases. A layer that a text goes through many times (ALBERT) is there once.
    Raises: InputError for an architecture whose parts are not known.
    """
    parts = {"attention": ATTENTION, "ffn": FFN}.get(part, ATTENTION + FFN)
    inside = {layer.linear(each) for layer in architecture_of(network).layers for each in parts}
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    return {name: linear for name, linear in linears.items() if part == "all" or linear in inside}


def magnitude_scores(linears: Mapping[str, nn.Linear]) -> dict[str, torch.Tensor]:
    """|W|, to be compared over all matrices together: one with small weights loses more of them than another."""
    return {name: linear.weight.detach().abs() for name, linear in linears.items()}


def wanda_scores(
    network: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], linears: Mapping[str, nn.Linear]
) -> dict[str, torch.Tensor]:
    """|W_ij| · ‖X_j‖₂ (Sun et al. 2023), to be compared within each output row i: every row loses the same share.

    ‖X_j‖₂ is the norm of input feature j over all real tokens of `batches`; padding does not count, and a map behind
    the pooling sees one vector a text. Of a map that is called many times in a pass (ALBERT), all calls count.
    batches: input ids and attention mask, both (batch, tokens).
    """
    device, was_training = next(network.parameters()).device, network.training
    network.eval()  # dropout would be counted as input
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
    """Sums of the squares of each input feature (in,) while this is open; the caller says which "tokens" are real.

    No hook outlives it.
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
    """Masks that drop the lowest scores: exactly round(sparsity · n) of the n of all matrices together, or of each row.

    Of equal scores, those that come first go first.
    """
    if per_row:
        return {name: _highest(each, round(sparsity * each.shape[1])) for name, each in scores.items()}
    together = torch.cat([each.flatten() for each in scores.values()])
    kept = _highest(together.unsqueeze(0), round(sparsity * len(together)))[0]
    parts = kept.split([each.numel() for each in scores.values()])
    return {name: part.view_as(each) for (name, each), part in zip(scores.items(), parts, strict=True)}


def _highest(scores: torch.Tensor, dropped: int) -> torch.Tensor:
    """Which scores of each row of (rows, n) stay when the `dropped` lowest go."""
    if dropped == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    bar = scores.kthvalue(dropped, dim=1, keepdim=True).values  # (rows, 1), the highest that goes
    level = scores == bar
    going = dropped - (scores < bar).sum(1, keepdim=True)  # (rows, 1), how many of the equals go
    return (scores > bar) | (level & (level.cumsum(1, dtype=torch.int32) > going))


def scheduled_sparsity(final: float, schedule: Schedule, progress: float) -> float:
    """The share of zeros when `progress` (0 to 1, else cut off) of the way from none to `final` is gone.

    linear: even; cubic: fast at first, while there is much to spare (Zhu & Gupta 2017); exponential: the share of
    weights that stay falls by the same factor in equal times.
    """
    t = min(max(progress, 0.0), 1.0)
    if schedule == "linear":
        return final * t
    return final * (1 - (1 - t) ** 3) if schedule == "cubic" else 1 - (1 - final) ** t


def apply_masks(network: nn.Module, masks: Tensors) -> None:
    """Set the weights that `masks` drop to zero, in place."""
    for name, mask in masks.items():
        weight = _weight(network, name)
        weight.masked_fill_(~mask.to(weight.device), 0)  # a product would leave negative zeros, which pack worse


def masks_of(network: nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The masks that the zeros of the weights tell."""
    return {name: _weight(network, name) != 0 for name in names}


def _weight(network: nn.Module, name: str) -> torch.Tensor:
    """(out, in), without a gradient; changing it changes the network."""
    linear = network.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear.weight.detach()


@dataclass(frozen=True)
class Growth:
    """When masks grow while a network trains, and how far."""

    final: float
    """Share of zeros from `end_step` on."""
    schedule: Schedule
    start_step: int
    end_step: int
    frequency: int
    """Steps from one growth to the next."""

    def due(self, step: int) -> float | None:
        """The share of zeros that masks grow to after `step`, None if they stay as they are."""
        if step == self.end_step:
            return self.final
        since = step - self.start_step
        if not 0 <= since < self.end_step - self.start_step or since % self.frequency:
            return None
        return scheduled_sparsity(self.final, self.schedule, since / (self.end_step - self.start_step))


class Gradual:
    """Masks by magnitude that grow while a network trains (Zhu & Gupta 2017), and never shrink.

    What is zero when this is made is masked. So make it of the weights that a resumed training goes on from, after
    they are loaded, and it goes on with their masks.
    """

    def __init__(self, network: nn.Module, names: Iterable[str], growth: Growth) -> None:
        self.network, self.growth = network, growth
        self.masks = masks_of(network, names)

    def after_step(self, step: int) -> None:
        """Grow the masks if that is due, and zero what the optimizer moved. step: counted from 1."""
        due = self.growth.due(step)
        if due is not None:
            # What is masked has moved with this step; at -1 it is the first to go again.
            scores = {n: _weight(self.network, n).abs().where(mask, -1.0) for n, mask in self.masks.items()}
            grown = sparsest(scores, due, per_row=False)
            self.masks = {name: mask & grown[name] for name, mask in self.masks.items()}
        apply_masks(self.network, self.masks)


def hold(network: nn.Module, masks: Tensors) -> Callable[[int], None]:
    """Call it after each step of the optimizer: what `masks` drop stays zero."""
    return lambda step: apply_masks(network, masks)


def counted_sparsity(file: Path, names: Iterable[str]) -> float:
    """The share of exact zeros in the weights of the linear maps `names`, counted in a safetensors file."""
    with safe_open(file, framework="np") as stored:
        weights = [stored.get_tensor(f"{name}.weight") for name in names]
    return float(sum((weight == 0).sum() for weight in weights) / sum(weight.size for weight in weights))


def zstd_size(file: Path) -> int:
    """Bytes of `file` when compressed by zstd at its level 19, as a download may be."""
    import pyarrow as pa

    return int(pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(file.read_bytes()).size)

"""Cut heads, neurons and layers out of a network: its weights get smaller, not only zero.

A head is its rows of the query, key and value maps and its columns of the map behind them; a neuron is a row of the
map into the feed-forward part and a column of the map out of it. Nothing else of a layer knows how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from toolkit.modeling.architecture import Layer, Sizes, architecture_of, keep_layers
from toolkit.utils.errors import InputError


@dataclass(frozen=True)
class Kept:
    """Which units of a layer stay, each counted from 0."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


def cut(network: nn.Module, kept: Sequence[Kept | None]) -> None:
    """Cut `network` in place to what is named for each of its layers; None drops the layer.

    A layer that stays keeps one head and one neuron at least.
    """
    parts = architecture_of(network)
    assert len(kept) == len(parts.layers)
    for layer, stays in zip(parts.layers, kept, strict=True):
        if stays is not None:
            _cut_layer(layer, stays)
    left = [i for i, stays in enumerate(kept) if stays is not None]
    assert left, "a network keeps a layer"
    if len(left) < len(kept):
        keep_layers(parts.encoder, left)


def shrink(network: nn.Module, left: Sequence[Sizes]) -> None:
    """Give `network`, fresh from its configuration, the sizes of a cut one, whose weights are then loaded.

    Raises: InputError if its layers are not as many, or do not have so many units.
    """
    layers = architecture_of(network).layers
    if len(left) != len(layers):
        raise InputError(f"there are sizes for {len(left)} layers and not for {len(layers)}")
    for layer, size in zip(layers, left, strict=True):
        if not (1 <= size.heads <= layer.heads and 1 <= size.neurons <= layer.neurons):
            raise InputError(
                f"{size.heads} heads and {size.neurons} neurons in a layer of {layer.heads} and {layer.neurons}"
            )
        _cut_layer(layer, Kept(tuple(range(size.heads)), tuple(range(size.neurons))))


def is_cut(network: nn.Module) -> bool:
    """Whether some layer has fewer heads or neurons than the configuration says."""
    try:
        parts = architecture_of(network)
    except InputError:
        return False  # nobody can have cut what is not known here
    config = parts.encoder.config
    neurons = config.hidden_dim if hasattr(config, "hidden_dim") else config.intermediate_size
    return any((layer.heads, layer.neurons) != (config.num_attention_heads, neurons) for layer in parts.layers)


def _cut_layer(layer: Layer, kept: Kept) -> None:
    assert kept.heads, "a layer keeps a head"
    assert kept.neurons, "a layer keeps a neuron"
    width = layer.head_width
    of_heads = [head * width + i for head in kept.heads for i in range(width)]
    for part in ("query", "key", "value"):
        layer.replace(part, _with_rows(layer.linear(part), of_heads))
    layer.replace("context", _with_columns(layer.linear("context"), of_heads))
    layer.replace("into", _with_rows(layer.linear("into"), kept.neurons))
    layer.replace("out", _with_columns(layer.linear("out"), kept.neurons))
    setattr(layer.attention, layer.paths.heads, len(kept.heads))
    setattr(layer.attention, layer.paths.inner, len(of_heads))


def _with_rows(linear: nn.Linear, rows: Sequence[int]) -> nn.Linear:
    """`linear` with some of its outputs."""
    chosen = list(rows)
    return _linear(linear.weight.detach()[chosen], None if linear.bias is None else linear.bias.detach()[chosen])


def _with_columns(linear: nn.Linear, columns: Sequence[int]) -> nn.Linear:
    """`linear` of some of its inputs."""
    return _linear(linear.weight.detach()[:, list(columns)], None if linear.bias is None else linear.bias.detach())


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight.clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.clone())
    return made

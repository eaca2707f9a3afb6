"""Remove heads, neurons and layers from a network, so that its weight matrices become smaller.

A head corresponds to rows of the query, key and value maps and to columns of the attention output map. A neuron
corresponds to a row of the first feed-forward map and to a column of the second. No other part of a layer depends on
the number of heads or neurons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from toolkit.modeling.architecture import Layer, Sizes, architecture_of, keep_layers
from toolkit.utils.errors import InputError


@dataclass(frozen=True)
class Kept:
    """Indices, counted from 0, of the heads and neurons of a layer to keep."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


def cut(network: nn.Module, kept: Sequence[Kept | None]) -> None:
    """Prune `network` in place: keep the given units of each layer; None removes the layer.

    At least one layer must remain, and at least one head and one neuron in each remaining layer.
    """
    architecture = architecture_of(network)
    assert len(kept) == len(architecture.layers)
    for layer, units in zip(architecture.layers, kept, strict=True):
        if units is not None:
            _cut_layer(layer, units)
    remaining = [i for i, units in enumerate(kept) if units is not None]
    assert remaining, "a network keeps at least one layer"
    if len(remaining) < len(kept):
        keep_layers(architecture.encoder, remaining)


def shrink(network: nn.Module, left: Sequence[Sizes]) -> None:
    """Shrink the layers of a newly built `network` to the sizes of a pruned one, before its weights are loaded.

    Raises: InputError if the number of layers differs, or if a layer has fewer heads or neurons.
    """
    layers = architecture_of(network).layers
    if len(left) != len(layers):
        raise InputError(f"{len(left)} layer sizes for a model with {len(layers)} layers")
    for layer, size in zip(layers, left, strict=True):
        if not (1 <= size.heads <= layer.heads and 1 <= size.neurons <= layer.neurons):
            raise InputError(
                f"{size.heads} heads and {size.neurons} neurons for a layer with {layer.heads} and {layer.neurons}"
            )
        _cut_layer(layer, Kept(tuple(range(size.heads)), tuple(range(size.neurons))))


def is_cut(network: nn.Module) -> bool:
    """Return whether any layer has fewer heads or neurons than its configuration."""
    try:
        architecture = architecture_of(network)
    except InputError:
        return False  # unsupported architectures are never pruned
    config = architecture.encoder.config
    neurons = config.hidden_dim if hasattr(config, "hidden_dim") else config.intermediate_size
    return any((layer.heads, layer.neurons) != (config.num_attention_heads, neurons) for layer in architecture.layers)


def _cut_layer(layer: Layer, kept: Kept) -> None:
    assert kept.heads, "a layer keeps at least one head"
    assert kept.neurons, "a layer keeps at least one neuron"
    width = layer.head_width
    head_rows = [head * width + i for head in kept.heads for i in range(width)]
    for part in ("query", "key", "value"):
        layer.replace(part, _with_rows(layer.linear(part), head_rows))
    layer.replace("context", _with_columns(layer.linear("context"), head_rows))
    layer.replace("into", _with_rows(layer.linear("into"), kept.neurons))
    layer.replace("out", _with_columns(layer.linear("out"), kept.neurons))
    setattr(layer.attention, layer.paths.heads, len(kept.heads))
    setattr(layer.attention, layer.paths.all_head_size, len(head_rows))


def _with_rows(linear: nn.Linear, rows: Sequence[int]) -> nn.Linear:
    """Return a copy of `linear` with only the outputs `rows`."""
    chosen = list(rows)
    return _linear(linear.weight.detach()[chosen], None if linear.bias is None else linear.bias.detach()[chosen])


def _with_columns(linear: nn.Linear, columns: Sequence[int]) -> nn.Linear:
    """Return a copy of `linear` with only the inputs `columns`."""
    return _linear(linear.weight.detach()[:, list(columns)], None if linear.bias is None else linear.bias.detach())


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = nn.Parameter(weight.clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.clone())
    return linear

"""The layers of an encoder, wherever its architecture keeps them."""

from collections.abc import Sequence
from typing import Any

from torch import nn

OWN = ("encoder.layer", "transformer.layer")
"""BERT and its kin; DistilBERT."""
SHARED = "encoder.albert_layer_groups.0.albert_layers"
"""ALBERT: a text goes through the same layer many times."""


def encoder_of(network: Any) -> Any:
    """The encoder in a classifier's network, None if it is no transformer."""
    own = getattr(network, "encoder", None)
    return own if own is not None else getattr(getattr(network, "model", None), "base_model", None)


def layer_stack(encoder: Any, *paths: str) -> nn.ModuleList | None:
    """The layers of `encoder`, in order, under the first of `paths` (OWN by default) that it has; None for none."""
    for path in paths or OWN:
        try:
            found = encoder.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    return None


def keep_layers(encoder: Any, kept: Sequence[int]) -> None:
    """Drop all layers of `encoder` but those of the numbers `kept`, in that order."""
    stack = layer_stack(encoder)
    assert stack is not None
    for place, layer in enumerate([stack[i] for i in kept]):
        stack[place] = layer
    del stack[len(kept) :]
    encoder.config.num_hidden_layers = len(kept)

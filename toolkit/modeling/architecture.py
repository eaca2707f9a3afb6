"""Where an encoder keeps what can be cut: the heads of its attention and the neurons of its feed-forward part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from toolkit.utils.errors import InputError

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


@dataclass(frozen=True)
class LayerPaths:
    """What an architecture calls the parts of a layer."""

    kinds: frozenset[str]
    """What the configuration calls the architectures that are so. Names alone tell too little: ConvBERT, Longformer,
    MobileBERT, BigBird and Nystromformer have the same ones, and more behind them that counts heads."""
    attention: str
    """The module that knows the number of its heads."""
    query: str
    key: str
    value: str
    context: str
    """The linear map behind the heads."""
    into: str
    """The linear map from the width to the neurons."""
    out: str
    """That from the neurons back."""
    heads: str
    """Attribute of `attention`: number of heads."""
    inner: str
    """Attribute of `attention`: width of all heads together."""


LAYER_PATHS = (
    LayerPaths(
        kinds=frozenset({"bert", "camembert", "electra", "ernie", "rembert", "roberta", "xlm-roberta"}),
        attention="attention.self",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        context="attention.output.dense",
        into="intermediate.dense",
        out="output.dense",
        heads="num_attention_heads",
        inner="all_head_size",
    ),
    LayerPaths(
        kinds=frozenset({"distilbert"}),
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        context="attention.out_lin",
        into="ffn.lin1",
        out="ffn.lin2",
        heads="n_heads",
        inner="dim",
    ),
    LayerPaths(
        kinds=frozenset({"albert"}),  # whose one layer is gone through many times
        attention="attention",
        query="attention.query",
        key="attention.key",
        value="attention.value",
        context="attention.dense",
        into="ffn",
        out="ffn_output",
        heads="num_attention_heads",
        inner="all_head_size",
    ),
)


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of an encoder."""

    module: nn.Module
    paths: LayerPaths
    head_width: int

    @property
    def heads(self) -> int:
        return int(getattr(self.attention, self.paths.heads))

    @property
    def neurons(self) -> int:
        return int(self.linear("into").out_features)

    @property
    def attention(self) -> nn.Module:
        return self.module.get_submodule(self.paths.attention)

    def linear(self, part: str) -> nn.Linear:
        """The linear map that `LayerPaths` calls `part`."""
        found = self.module.get_submodule(getattr(self.paths, part))
        assert isinstance(found, nn.Linear)
        return found

    def replace(self, part: str, made: nn.Linear) -> None:
        """Put `made` where `part` was."""
        self.module.set_submodule(getattr(self.paths, part), made)


@dataclass(frozen=True, eq=False)
class Architecture:
    """The layers of an encoder that are there once, in order."""

    layers: tuple[Layer, ...]
    encoder: Any
    """The module that holds the layers, with its configuration."""


@dataclass(frozen=True)
class Sizes:
    """What is left of one layer."""

    heads: int
    neurons: int


def architecture_of(network: nn.Module) -> Architecture:
    """The parts of a classifier's encoder that can be cut.

    Raises: InputError, saying why, for an architecture whose parts are not known here.
    """
    encoder = encoder_of(network)
    if encoder is None:
        raise InputError("--prune-method: a student without a transformer has no heads or neurons; leave pruning out")
    config = encoder.config
    stack = layer_stack(encoder, *OWN, SHARED)
    paths = next((each for each in LAYER_PATHS if config.model_type in each.kinds), None)
    if stack is None or paths is None:
        raise InputError(
            f"--prune-method: a {config.model_type} network, whose heads and neurons are not known here; "
            "take BERT, RoBERTa, XLM-RoBERTa, ELECTRA, DistilBERT or ALBERT"
        )
    if getattr(config, "num_hidden_groups", 1) > 1 or getattr(config, "inner_group_num", 1) > 1:
        raise InputError("--prune-method: an ALBERT with several groups of layers; only one group can be pruned here")
    width = config.hidden_size // config.num_attention_heads
    layers = tuple(Layer(module, paths, width) for module in stack)
    return Architecture(layers, encoder)


def sizes(network: nn.Module) -> list[Sizes]:
    """Heads and neurons of each layer, as they are now."""
    return [Sizes(layer.heads, layer.neurons) for layer in architecture_of(network).layers]


def encoder_weights(network: nn.Module) -> int:
    """Weights of the layers of the encoder, biases and norms included; embeddings and head are not counted."""
    return sum(p.numel() for layer in architecture_of(network).layers for p in layer.module.parameters())


def summary_of(left: Sequence[Sizes]) -> str:
    """For people: `4 layers; heads 6 6 5 3; neurons 768 704 512 256`."""
    heads, neurons = (" ".join(str(getattr(each, name)) for each in left) for name in ("heads", "neurons"))
    return f"{len(left)} layer{'s' * (len(left) > 1)}; heads {heads}; neurons {neurons}"


def encoder_layers(encoder: Any) -> nn.ModuleList:
    """The layers of an encoder, in order. Raises InputError where an architecture has none of its own."""
    found = layer_stack(encoder)
    if found is not None:
        return found
    raise InputError(
        f"--student layers:N: a {encoder.config.model_type} encoder has no layers to choose from; use shape:LxH"
    )

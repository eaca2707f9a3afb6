"""Access to the layers, attention heads and feed-forward neurons of the supported encoder architectures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from toolkit.utils.errors import InputError

LAYER_LIST_PATHS = ("encoder.layer", "transformer.layer")
"""Layer list of BERT-like encoders and of DistilBERT."""
SHARED_LAYER_LIST_PATH = "encoder.albert_layer_groups.0.albert_layers"
"""Layer list of ALBERT, which applies the same layer repeatedly."""


def encoder_of(network: Any) -> Any:
    """Return the transformer encoder of a classifier's network, or None if it has none."""
    encoder = getattr(network, "encoder", None)
    return encoder if encoder is not None else getattr(getattr(network, "model", None), "base_model", None)


def layer_stack(encoder: Any, *paths: str) -> nn.ModuleList | None:
    """Return the layers of `encoder` at the first of `paths` (default: LAYER_LIST_PATHS) that exists, or None."""
    for path in paths or LAYER_LIST_PATHS:
        try:
            found = encoder.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    return None


def keep_layers(encoder: Any, kept: Sequence[int]) -> None:
    """Keep only the layers of `encoder` with the indices `kept`, in that order."""
    stack = layer_stack(encoder)
    assert stack is not None
    for index, layer in enumerate([stack[i] for i in kept]):
        stack[index] = layer
    del stack[len(kept) :]
    encoder.config.num_hidden_layers = len(kept)


@dataclass(frozen=True)
class LayerPaths:
    """Paths of the submodules of a layer, by architecture."""

    model_types: frozenset[str]
    """`model_type` of the supported architectures. Matching paths are not enough: ConvBERT, Longformer, MobileBERT,
    BigBird and Nystromformer use the same paths, but have further modules that depend on the number of heads."""
    attention: str
    """The module that stores the number of heads."""
    query: str
    key: str
    value: str
    context: str
    """The output projection of the attention."""
    into: str
    """The first linear map of the feed-forward part: hidden size to neurons."""
    out: str
    """The second linear map of the feed-forward part: neurons to hidden size."""
    heads: str
    """Attribute of `attention`: number of heads."""
    all_head_size: str
    """Attribute of `attention`: total width of all heads."""


LAYER_PATHS = (
    LayerPaths(
        model_types=frozenset({"bert", "camembert", "electra", "ernie", "rembert", "roberta", "xlm-roberta"}),
        attention="attention.self",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        context="attention.output.dense",
        into="intermediate.dense",
        out="output.dense",
        heads="num_attention_heads",
        all_head_size="all_head_size",
    ),
    LayerPaths(
        model_types=frozenset({"distilbert"}),
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        context="attention.out_lin",
        into="ffn.lin1",
        out="ffn.lin2",
        heads="n_heads",
        all_head_size="dim",
    ),
    LayerPaths(
        model_types=frozenset({"albert"}),
        attention="attention",
        query="attention.query",
        key="attention.key",
        value="attention.value",
        context="attention.dense",
        into="ffn",
        out="ffn_output",
        heads="num_attention_heads",
        all_head_size="all_head_size",
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
        """Return the linear map at the field `part` of `LayerPaths`."""
        found = self.module.get_submodule(getattr(self.paths, part))
        assert isinstance(found, nn.Linear)
        return found

    def replace(self, part: str, linear: nn.Linear) -> None:
        """Replace the linear map at the field `part` of `LayerPaths`."""
        self.module.set_submodule(getattr(self.paths, part), linear)


@dataclass(frozen=True, eq=False)
class Architecture:
    """An encoder and its distinct layers, in order. A shared layer (ALBERT) is listed once."""

    layers: tuple[Layer, ...]
    encoder: Any
    """The module that contains the layers and has the configuration."""


@dataclass(frozen=True)
class Sizes:
    """Number of heads and neurons of one layer."""

    heads: int
    neurons: int


def architecture_of(network: nn.Module) -> Architecture:
    """Return the encoder of a classifier's network and its layers.

    Raises: InputError if the architecture is not supported.
    """
    encoder = encoder_of(network)
    if encoder is None:
        raise InputError("--prune-method: a model without a transformer has no heads or neurons; leave out pruning")
    config = encoder.config
    stack = layer_stack(encoder, *LAYER_LIST_PATHS, SHARED_LAYER_LIST_PATH)
    paths = next((each for each in LAYER_PATHS if config.model_type in each.model_types), None)
    if stack is None or paths is None:
        raise InputError(
            f"--prune-method: {config.model_type} models are not supported; "
            "use BERT, RoBERTa, XLM-RoBERTa, ELECTRA, DistilBERT or ALBERT"
        )
    if getattr(config, "num_hidden_groups", 1) > 1 or getattr(config, "inner_group_num", 1) > 1:
        raise InputError("--prune-method: this ALBERT has several layer groups; use one with a single group")
    width = config.hidden_size // config.num_attention_heads
    layers = tuple(Layer(module, paths, width) for module in stack)
    return Architecture(layers, encoder)


def sizes(network: nn.Module) -> list[Sizes]:
    """Return the current number of heads and neurons of each layer."""
    return [Sizes(layer.heads, layer.neurons) for layer in architecture_of(network).layers]


def encoder_weights(network: nn.Module) -> int:
    """Return the number of parameters of the encoder layers, without embeddings and classification head."""
    return sum(p.numel() for layer in architecture_of(network).layers for p in layer.module.parameters())


def summary_of(left: Sequence[Sizes]) -> str:
    """Return a readable summary: `4 layers; heads 6 6 5 3; neurons 768 704 512 256`."""
    heads, neurons = (" ".join(str(getattr(each, name)) for each in left) for name in ("heads", "neurons"))
    return f"{len(left)} layer{'s' * (len(left) > 1)}; heads {heads}; neurons {neurons}"


def encoder_layers(encoder: Any) -> nn.ModuleList:
    """Return the layers of an encoder, in order. Raise InputError if it has no separate layers."""
    layers = layer_stack(encoder)
    if layers is not None:
        return layers
    raise InputError(
        f"--student layers:N: {encoder.config.model_type} encoders have no separate layers to select; use shape:LxH"
    )

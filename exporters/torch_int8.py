"""torch-int8: a transformer with PyTorch's int8 kernels, for networks that cannot be exported to ONNX.

This is PyTorch's dynamic quantization (https://docs.pytorch.org/docs/stable/quantization.html): large linear layers
are stored as int8, and `torch.ops.quantized` quantizes their inputs at run time. The weights are quantized here because
the output of `torch.ao.quantization.quantize_dynamic` can only be pickled and keeps embedding tables in float.
`network.json` describes the architecture, `model.safetensors` stores all parameters and buffers.
"""

import json
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exporters.loaders.compose import load_package, loader_source
from exporters.onnx_fp32 import missing_modules
from exporters.registry import Candidate, Evidence, LoadedArtifact
from toolkit.utils.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

MODEL_FILE, NETWORK_FILE = "model.safetensors", "network.json"
SMALLEST_MATRIX = 1024
"""Minimum number of weights: int8 saves neither time nor space for a smaller matrix, such as the head."""
SMALLEST_TABLE = 64
"""Minimum number of rows of an embedding table."""
_NOT_ARCHITECTURE = ("architectures", "transformers_version", "dtype", "torch_dtype", "auto_map")


@dataclass(frozen=True)
class TorchInt8:
    """See `exporters.registry.Exporter`."""

    name: str = "torch-int8"
    summary: str = "PyTorch, int8 weights: the fallback for a network that cannot be exported to ONNX"
    promise: Literal["faster", "smaller", "same"] = "faster"
    reference: str | None = None
    file: str = MODEL_FILE
    distributions: tuple[str, ...] = ("torch", "transformers", "tokenizers", "safetensors", "numpy")

    def available(self) -> str | None:
        return missing_modules("torch", "transformers", "safetensors", install="torch transformers safetensors")

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
    ) -> list[Candidate]:
        from toolkit.modeling.ngram import NgramNetwork

        network = classifier.network
        if isinstance(network, NgramNetwork):
            raise InputError("--target torch-int8: an ngram student has no linear layers; use --target onnx-int8")
        parts = tuple(large_parts(network))
        return [
            Candidate("dynamic, per-channel weights", partial(write, network, True), parts),
            Candidate("dynamic, per-tensor weights", partial(write, network, False), parts),
        ]

    def loader(self, folder: Path) -> str:
        return loader_source("torch")

    def needs(self, folder: Path) -> tuple[str, ...]:
        return self.distributions

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtifact:
        return load_package("torch", folder, threads)


def large_parts(network: "nn.Module") -> list[str]:
    """Return the names of the linear layers and embedding tables that are large enough to quantize."""
    from torch import nn

    # Exact types only: a subclass may compute something else, or other modules may read its weights.
    return [
        name
        for name, module in network.named_modules()
        if (type(module) is nn.Linear and module.weight.numel() >= SMALLEST_MATRIX)
        or (type(module) is nn.Embedding and module.num_embeddings >= SMALLEST_TABLE)
    ]


def write(network: Any, by_column: bool, folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
    """Write `network` into `folder` with its large parts in int8, except those in `in_float`.

    by_column: one scale per output of a linear layer. Embedding tables always have one scale per row.
    Returns: facts about the artifact: number of int8 and float weights.
    """
    from safetensors.torch import save_file
    from torch import nn

    stored = {
        # Cloned because safetensors refuses tensors that share memory.
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().contiguous().clone()
        for name, tensor in chain(
            network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False)
        )
    }
    quantized = [name for name in large_parts(network) if name not in in_float]
    for name in quantized:
        by_row = by_column or isinstance(network.get_submodule(name), nn.Embedding)
        stored[f"{name}.weight"], stored[f"{name}.scale"] = quantize(stored[f"{name}.weight"], by_row)
    save_file(stored, folder / MODEL_FILE)
    (folder / NETWORK_FILE).write_text(json.dumps(_blueprint(network, quantized), indent=2) + "\n", "utf-8")
    return {
        "per_channel": by_column,
        "int8_weights": sum(stored[f"{name}.weight"].numel() for name in quantized),
        "float_weights": sum(
            tensor.numel()
            for name, tensor in stored.items()
            if tensor.is_floating_point() and name.removesuffix(".scale") not in quantized
        ),
    }


def quantize(weight: "torch.Tensor", by_row: bool) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return int8 codes in the shape of `weight` (rows, columns) and float32 scales, (rows,) or (1,)."""
    import torch

    largest = weight.abs().amax(dim=1) if by_row else weight.abs().max().reshape(1)
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def _blueprint(network: Any, quantized: list[str]) -> dict[str, Any]:
    """Return the content of network.json."""
    from toolkit.modeling.classifier import PooledClassifier

    pooled = isinstance(network, PooledClassifier)
    config = network.config.to_diff_dict()
    return {
        "kind": type(network).__name__,
        "pooling": network.pooling if pooled else None,
        "labels": network.head.out_features if pooled else network.config.num_labels,
        "config": {
            name: value
            for name, value in config.items()
            if name not in _NOT_ARCHITECTURE and "attn_implementation" not in name and not name.startswith("_")
        },
        "attributes": _pruned_attention_sizes(network),
        "int8": quantized,
    }


def _pruned_attention_sizes(network: Any) -> dict[str, dict[str, int]]:
    """Return the attributes to set on attention modules of a pruned network; matrices carry their own shapes."""
    from toolkit.modeling.architecture import architecture_of
    from toolkit.modeling.surgery import is_cut

    if not is_cut(network):
        return {}
    names = {module: name for name, module in network.named_modules()}
    return {
        names[layer.attention]: {
            attribute: int(getattr(layer.attention, attribute))
            for attribute in (layer.paths.heads, layer.paths.all_head_size)
        }
        for layer in architecture_of(network).layers
    }


EXPORTER = TorchInt8()

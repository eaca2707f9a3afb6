"""torch-int8: a transformer for PyTorch's own eight-bit kernels, for where ONNX is not possible.

It is PyTorch's dynamic quantization (https://docs.pytorch.org/docs/stable/quantization.html): large linear maps are
stored as int8 and multiplied with activations that are quantized as they come, by `torch.ops.quantized`. The weights
are quantized here, tensor by tensor, because what `torch.ao.quantization.quantize_dynamic` makes can only be pickled,
and it leaves the tables of embeddings in single precision. `network.json` says how the network is built,
`model.safetensors` has every parameter and every buffer of it.
"""

import json
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exporters.onnx_fp32 import LOADER, load_package, missing_modules
from exporters.registry import Candidate, Evidence, LoadedArtifact
from toolkit.utils.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

MODEL_FILE, NETWORK_FILE = "model.safetensors", "network.json"
SMALLEST_MATRIX = 1024
"""Weights. A smaller matrix, such as the head, saves neither time nor bytes in int8."""
SMALLEST_TABLE = 64
"""Rows."""
_NOT_OF_THE_NETWORK = ("architectures", "transformers_version", "dtype", "torch_dtype", "auto_map")


@dataclass(frozen=True)
class TorchInt8:
    """See `exporters.registry.Exporter`."""

    name: str = "torch-int8"
    summary: str = "PyTorch, eight-bit weights: the fallback for a network that ONNX cannot hold"
    promise: Literal["faster", "smaller", "same"] = "faster"
    reference: str | None = None
    file: str = MODEL_FILE
    distributions: tuple[str, ...] = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
    loader: Path = LOADER

    def available(self) -> str | None:
        return missing_modules("torch", "transformers", "safetensors", install="torch transformers safetensors")

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", single: Path
    ) -> list[Candidate]:
        from toolkit.modeling.ngram import NgramNetwork

        network = classifier.network
        if isinstance(network, NgramNetwork):
            raise InputError("--target torch-int8: an ngram student has no linear maps; take onnx-int8")
        parts = tuple(large_parts(network))
        return [
            Candidate("dynamic, one scale a column", partial(write, network, True), parts),
            Candidate("dynamic, one scale a matrix", partial(write, network, False), parts),
        ]

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtifact:
        return load_package(folder, threads)


def large_parts(network: "nn.Module") -> list[str]:
    """Names of the linear maps and the tables of embeddings that are worth eight bits."""
    from torch import nn

    # Exact types: a subclass computes something else, or is looked into by others.
    return [
        name
        for name, module in network.named_modules()
        if (type(module) is nn.Linear and module.weight.numel() >= SMALLEST_MATRIX)
        or (type(module) is nn.Embedding and module.num_embeddings >= SMALLEST_TABLE)
    ]


def write(network: Any, by_column: bool, folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
    """Write `network` into `folder`, its large parts in int8 but for those `in_float`.

    by_column: each output of a linear map has a scale of its own. Each row of a table has one in any case.
    """
    from safetensors.torch import save_file
    from torch import nn

    stored = {
        # A clone, as safetensors refuses tensors that share memory.
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().contiguous().clone()
        for name, tensor in chain(
            network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False)
        )
    }
    small = [name for name in large_parts(network) if name not in in_float]
    for name in small:
        by_row = by_column or isinstance(network.get_submodule(name), nn.Embedding)
        stored[f"{name}.weight"], stored[f"{name}.scale"] = in_eight_bits(stored[f"{name}.weight"], by_row)
    save_file(stored, folder / MODEL_FILE)
    (folder / NETWORK_FILE).write_text(json.dumps(_blueprint(network, small), indent=2) + "\n", "utf-8")
    return {
        "per_channel": by_column,
        "int8_weights": sum(stored[f"{name}.weight"].numel() for name in small),
        "float_weights": sum(
            tensor.numel()
            for name, tensor in stored.items()
            if tensor.is_floating_point() and name.removesuffix(".scale") not in small
        ),
    }


def in_eight_bits(weight: "torch.Tensor", by_row: bool) -> tuple["torch.Tensor", "torch.Tensor"]:
    """int8 of the shape of `weight` (rows, columns) and the float32 scales to multiply it with, (rows,) or (1,)."""
    import torch

    largest = weight.abs().amax(dim=1) if by_row else weight.abs().max().reshape(1)
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def _blueprint(network: Any, small: list[str]) -> dict[str, Any]:
    """What network.json says."""
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
            if name not in _NOT_OF_THE_NETWORK and "attn_implementation" not in name and not name.startswith("_")
        },
        "attributes": _sizes_of_cut_layers(network),
        "int8": small,
    }


def _sizes_of_cut_layers(network: Any) -> dict[str, dict[str, int]]:
    """Of a pruned network, what its attention modules must be told; matrices have their sizes in the file."""
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

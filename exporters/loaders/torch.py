"""The model is a transformer, run by PyTorch. network.json describes its architecture. Loading never unpickles and does
not run code named in a configuration.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from exporters.loaders.base.files import open_package
from exporters.loaders.base.script import main
from exporters.loaders.base.subwords import subwords
from exporters.loaders.common import Model, Network

# Without VNNI, sums of two products can saturate, which 7-bit activations prevent. (PyTorch's own module always uses
# 7 bits, which loses precision on processors that cannot saturate.)
REDUCE_RANGE = not getattr(torch.cpu, "_is_vnni_supported", bool)()


class Int8Linear(torch.nn.Module):
    """A linear layer: int8 weight (outputs, inputs), float scale (outputs,) per channel or (1,) per tensor."""

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        restored = weight.float() * scale[:, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are deprecated; requirements.txt bounds the version
            if len(scale) == 1:
                quantized = torch.quantize_per_tensor(restored, float(scale), 0, torch.qint8)
            else:
                zeros = torch.zeros(len(scale), dtype=torch.int64)
                quantized = torch.quantize_per_channel(restored, scale.double(), zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(quantized, bias)

    @property
    def weight(self) -> torch.Tensor:  # some architectures read it
        return torch.ops.quantized.linear_unpack(self.packed)[0].dequantize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized.linear_dynamic(x, self.packed, REDUCE_RANGE)


class Int8Embedding(torch.nn.Module):
    """An embedding table: int8 weight (rows, width), float scale (rows,)."""

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.rows, self.scale = weight, scale[:, None]

    @property
    def weight(self) -> torch.Tensor:
        return self.rows * self.scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(ids, self.rows) * torch.nn.functional.embedding(ids, self.scale)


def transformer(folder: Path, threads: int | None) -> Network:
    """Return the network in `folder`."""
    if threads:
        torch.set_num_threads(threads)  # PyTorch only has a setting for the whole process
    description = json.loads((folder / "network.json").read_text("utf-8"))
    network = empty_network(description)
    fill(network, load_file(folder / "model.safetensors"), description["int8"])
    network.eval()

    def run(ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        with torch.inference_mode():
            tokens = torch.from_numpy(ids)
            attention = torch.ones_like(tokens) if mask is None else torch.from_numpy(mask)
            return logits_of(network, description["pooling"], tokens, attention).numpy()

    return run


def empty_network(description: dict[str, Any]) -> torch.nn.ModuleDict:
    """Return the modules of the network without weights, named as in model.safetensors."""
    # These keys could refer to remote code, which these networks do not need.
    settings = {k: v for k, v in description["config"].items() if k != "auto_map" and "attn_implementation" not in k}
    config = AutoConfig.for_model(**settings)
    with torch.device("meta"):
        if description["kind"] == "SequenceClassifier":
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
            network = torch.nn.ModuleDict({"model": model})
        else:
            encoder = AutoModel.from_config(config, trust_remote_code=False)
            if getattr(encoder, "pooler", None) is not None:
                encoder.pooler = None
            head = torch.nn.Linear(config.hidden_size, description["labels"])
            network = torch.nn.ModuleDict({"encoder": encoder, "head": head})
    for name, attributes in description["attributes"].items():  # pruned layers have fewer attention heads
        for attribute, value in attributes.items():
            setattr(network.get_submodule(name), attribute, int(value))
    return network


def fill(network: torch.nn.Module, tensors: dict[str, torch.Tensor], int8: list[str]) -> None:
    """Set all parameters and buffers of `network`; replace the modules named in `int8` by int8 modules.

    Raises: ValueError if a tensor is missing.
    """
    for name in int8:
        weight, scale = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.scale")
        if isinstance(network.get_submodule(name), torch.nn.Embedding):
            network.set_submodule(name, Int8Embedding(weight, scale))
        else:
            network.set_submodule(name, Int8Linear(weight, scale, tensors.pop(f"{name}.bias", None)))
    for name, tensor in tensors.items():
        path, _, attribute = name.rpartition(".")
        module = network.get_submodule(path)
        is_parameter = isinstance(getattr(module, attribute), torch.nn.Parameter)
        setattr(module, attribute, torch.nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)
    empty = [name for name, tensor in (*network.named_parameters(), *network.named_buffers()) if tensor.is_meta]
    if empty:
        raise ValueError(f"model.safetensors lacks {empty[0]} and {len(empty) - 1} more")


def logits_of(network: torch.nn.ModuleDict, pooling: str | None, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return logits, float32 (batch, labels). ids and mask: int64 (batch, tokens)."""
    if pooling is None:
        return network["model"](input_ids=ids, attention_mask=mask).logits
    hidden = network["encoder"](input_ids=ids, attention_mask=mask).last_hidden_state  # (batch, tokens, width)
    if pooling == "cls":
        return network["head"](hidden[:, 0])
    real = mask.unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
    if pooling == "mean":
        return network["head"]((hidden * real).sum(1) / real.sum(1))
    return network["head"]((hidden - (1 - real) * 1e4).max(1).values)


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None, verify: bool = True) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: maximum number of threads; None uses the default of the runtime.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    Raises: ValueError if a file is not as shipped or the model does not load.
    """
    folder = Path(__file__).parent if folder is None else folder
    return open_package(
        folder,
        ("network.json", "model.safetensors"),
        verify,
        lambda root: Model(root, subwords, transformer(root, threads)),
    )


if __name__ == "__main__":
    main(load)

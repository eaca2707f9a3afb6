"""PyTorch's dynamic quantization with its defaults: `quantize_dynamic(network, {nn.Linear})`.

Its output can only be pickled, so the network is quantized each time it is loaded: the size is that of the weights in
single precision, and the cold start includes the quantization.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Label, Rows, score
from benchmarks.peers.compressed.teacher import copy_parts, network_of, teacher_of, torch_labels


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Copy the teacher and score it quantized; the defaults leave nothing to choose."""
    copy_parts(teacher_of(given), folder, encoder=True)
    found = score(rows, load(folder, rows.names, "torch-dynamic-int8"))
    return {"settings": {"dtype": "qint8"}, "validation": {"torch-dynamic-int8": found}}


def load(folder: Path, names: Sequence[str], model: str) -> Label:
    """Return the function that labels texts."""
    import torch
    from torch import nn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and still what the documentation of PyTorch shows first
        network = torch.ao.quantization.quantize_dynamic(network_of(folder), {nn.Linear}, dtype=torch.qint8)
    return torch_labels(names, folder, network)

"""PyTorch in single precision, every text padded to 128 tokens, as many tutorials do it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Label, Rows
from benchmarks.peers.compressed.teacher import copy_parts, network_of, read_head, teacher_of, torch_labels

LENGTH = 128


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Copy the teacher: there is nothing to choose."""
    parts = teacher_of(given)
    copy_parts(parts, folder, encoder=True)
    return {
        "settings": {"padding": "max_length"},
        "validation": {"torch-padded-128": read_head(parts).validation_macro_f1},
    }


def load(folder: Path, names: Sequence[str], model: str) -> Label:
    """Return the function that labels texts."""
    return torch_labels(names, folder, network_of(folder), LENGTH)

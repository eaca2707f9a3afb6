"""ONNX Runtime's `quantize_dynamic` on a plain `torch.onnx.export`, as its documentation shows."""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Label, Rows
from benchmarks.peers.compressed.choice import chosen, facts
from benchmarks.peers.compressed.sessions import session_labels
from benchmarks.peers.compressed.teacher import copy_parts, network_of, read_head, teacher_of

MODEL = "onnxruntime-dynamic-int8"
SETTINGS: list[dict[str, Any]] = [
    {"dynamo": dynamo, "quantize_dynamic": options}
    for dynamo in (True, False)
    for options in ({}, {"per_channel": True})
]
"""The exporter of `torch.export` (the default) or the tracer; the defaults of `quantize_dynamic`, then per channel."""


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Export and quantize the teacher with the setting that is best on validation rows."""
    parts = teacher_of(given)
    copy_parts(parts, folder, encoder=False)
    label = partial(_labels, rows.names, folder)
    trial = chosen(rows, SETTINGS, partial(_make, parts), label, read_head(parts).validation_macro_f1, folder)
    return facts(trial, MODEL)


def load(folder: Path, names: Sequence[str], model: str) -> Label:
    """Return the function that labels texts."""
    return _labels(names, folder, folder / "chosen")


def _make(parts: Path, settings: dict[str, Any], folder: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    export(parts, folder / "float.onnx", settings["dynamo"])
    quantize_dynamic(folder / "float.onnx", folder / "model.onnx", **settings["quantize_dynamic"])
    for each in folder.glob("float.onnx*"):
        each.unlink()


def export(parts: Path, file: Path, dynamo: bool) -> None:
    """Write the teacher as an ONNX graph with free batch and length: input_ids, attention_mask -> logits."""
    import torch

    ids = torch.ones((2, 8), dtype=torch.int64)  # (batch, tokens)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    how: dict[str, Any] = {"input_names": ["input_ids", "attention_mask"], "output_names": ["logits"]}
    if dynamo:
        free = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
        how |= {"dynamo": True, "dynamic_shapes": (free, free), "external_data": False, "verbose": False}
    else:
        axes = {0: "batch", 1: "tokens"}
        how |= {"dynamo": False, "dynamic_axes": {"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network_of(parts), (ids, mask), str(file), **how)


def _labels(names: Sequence[str], parts: Path, folder: Path) -> Label:
    return session_labels(names, parts, folder / "model.onnx")

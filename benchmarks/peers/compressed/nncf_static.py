"""OpenVINO and NNCF: post-training quantization to int8, as the documentation of NNCF shows for transformers."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.common import Given, Label, Rows
from benchmarks.peers.compressed.choice import chosen, facts
from benchmarks.peers.compressed.teacher import (
    copy_parts,
    labels_from,
    network_of,
    read_head,
    read_tokenizer,
    teacher_of,
    threads,
)

MODEL = "nncf-int8"
SETTINGS: list[dict[str, Any]] = [{"preset": "PERFORMANCE"}, {"preset": "MIXED"}]
CALIBRATION = 300
"""Training texts: the default of NNCF."""


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Convert and quantize the teacher with the setting that is best on validation rows."""
    parts = teacher_of(given)
    copy_parts(parts, folder, encoder=False)
    make = partial(_make, parts, rows.texts[:CALIBRATION])
    label = partial(_labels, rows.names, folder)
    return facts(chosen(rows, SETTINGS, make, label, read_head(parts).validation_macro_f1, folder), MODEL)


def load(folder: Path, names: Sequence[str], model: str) -> Label:
    """Return the function that labels texts."""
    return _labels(names, folder, folder / "chosen")


def _make(parts: Path, texts: Sequence[str], settings: dict[str, Any], folder: Path) -> None:
    from exporters.openvino_int8 import quiet_nncf

    nncf, openvino = quiet_nncf()
    import torch

    tokenizer = read_tokenizer(parts)
    ids = torch.ones((2, 8), dtype=torch.int64)  # (batch, tokens)
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    quantized = nncf.quantize(
        openvino.convert_model(network_of(parts), example_input=example),
        nncf.Dataset(list(texts), partial(_inputs, tokenizer)),
        preset=nncf.QuantizationPreset[settings["preset"]],
        model_type=nncf.ModelType.TRANSFORMER,
    )
    openvino.save_model(quantized, folder / "model.xml")


def _inputs(tokenizer: Any, text: str) -> dict[str, np.ndarray]:
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)  # (1, tokens)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _labels(names: Sequence[str], parts: Path, folder: Path) -> Label:
    import openvino

    config = {"INFERENCE_NUM_THREADS": threads(), "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", config)
    tokenizer, head = read_tokenizer(parts), read_head(parts)
    return labels_from(names, head, lambda text: model(_inputs(tokenizer, text))[0][0])

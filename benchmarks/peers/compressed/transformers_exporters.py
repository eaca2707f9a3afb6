"""transformers 5: `transformers.exporters` with its ONNX Runtime quantizer and its fusions for the CPU."""

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Label, Missing, Rows
from benchmarks.peers.compressed.choice import chosen, facts
from benchmarks.peers.compressed.sessions import session_labels
from benchmarks.peers.compressed.teacher import copy_parts, encoder_of, read_head, read_tokenizer, teacher_of

MODEL = "transformers-exporters-int8"
SETTINGS: list[dict[str, Any]] = [
    {"quantizer": "dynamic", "ort_fusions": "cpu", "per_channel": False},
    {"quantizer": "dynamic", "ort_fusions": "cpu", "per_channel": True},
    {"quantizer": "dynamic", "ort_fusions": None, "per_channel": False},
    {"quantizer": "static", "ort_fusions": "cpu", "per_channel": True},
]
CALIBRATION = 128
"""Training texts for the ranges of activations of the static quantizer."""


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Export and quantize the encoder of the teacher with the setting that is best on validation rows."""
    try:
        import transformers.exporters
    except ImportError:
        import transformers

        raise Missing(f"transformers {transformers.__version__} has no exporters; it needs a release of 5") from None
    parts = teacher_of(given)
    copy_parts(parts, folder, encoder=False)
    make = partial(_make, parts, rows.texts[:CALIBRATION])
    label = partial(_labels, rows.names, folder)
    trial = chosen(rows, SETTINGS, make, label, read_head(parts).validation_macro_f1, folder)
    return facts(trial, MODEL)


def load(folder: Path, names: Sequence[str], model: str) -> Label:
    """Return the function that labels texts, in a session of ONNX Runtime: its runner would import torch."""
    return _labels(names, folder, folder / "chosen")


def _make(parts: Path, texts: Sequence[str], settings: dict[str, Any], folder: Path) -> None:
    from transformers.exporters import (
        OnnxConfig,
        OnnxExporter,
        OnnxRuntimeDynamicConfig,
        OnnxRuntimeQuantizer,
        OnnxRuntimeStaticConfig,
    )

    channel = settings["per_channel"] or None
    if settings["quantizer"] == "dynamic":
        quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=channel))
    else:
        samples = list(_inputs(parts, texts))
        quantizer = OnnxRuntimeQuantizer(OnnxRuntimeStaticConfig(per_channel=channel), calibration_dataset=samples)
    config = OnnxConfig(dynamic=True, ort_fusions=settings["ort_fusions"], quantizer=quantizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample = next(_inputs(parts, texts, 2))
        OnnxExporter().export(encoder_of(parts), sample, config=config).save_pretrained(folder)


def _inputs(parts: Path, texts: Sequence[str], batch: int = 1) -> Iterator[dict[str, Any]]:
    """Yield the inputs of texts, without padding: a batch repeats its text."""
    import torch

    tokenizer = read_tokenizer(parts)
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids] * batch)  # (batch, tokens)
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _labels(names: Sequence[str], parts: Path, folder: Path) -> Label:
    return session_labels(names, parts, next(folder.glob("*.onnx")))

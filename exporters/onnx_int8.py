"""onnx-int8: weights and embeddings in eight bits, run by ONNX Runtime.

A transformer's activations are quantized as they come; an ngram student has none.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.onnx_fp32 import (
    DISTRIBUTIONS,
    LOADER,
    MODEL_FILE,
    export_graph,
    feed,
    largest_logit_gap,
    load_onnx,
    missing_modules,
)
from exporters.registry import Artefact, LoadedArtefact

if TYPE_CHECKING:
    from toolkit.classifier import Classifier


@dataclass(frozen=True)
class OnnxInt8:
    """See `exporters.registry.Exporter`."""

    name: str = "onnx-int8"
    distributions: tuple[str, ...] = DISTRIBUTIONS
    loader: Path = LOADER

    def available(self) -> str | None:
        return missing_modules("optimum", "onnx", "onnxruntime")

    def export(self, classifier: "Classifier", texts: Sequence[str], out: Path) -> Artefact:
        from toolkit.ngram import NgramNetwork

        in_eight_bits = _ngram_in_eight_bits if isinstance(classifier.network, NgramNetwork) else _in_eight_bits
        file = out / MODEL_FILE
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            single = Path(scratch) / "fp32.onnx"
            export_graph(classifier, single)
            details = {
                "fp32_logit_gap": largest_logit_gap(classifier, texts, single),
                "fp32_size_bytes": single.stat().st_size,
                "rows_checked": len(texts),
            } | in_eight_bits(classifier, texts, single, file)
        return Artefact(file, self.name, details)

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtefact:
        return load_onnx(folder, threads)


def _in_eight_bits(classifier: "Classifier", texts: Sequence[str], single: Path, file: Path) -> dict[str, Any]:
    """Quantize the graph `single` with one scale a matrix and with one a column; keep what moves the logits less."""
    candidates = {per_channel: single.with_name(f"int8-{per_channel}.onnx") for per_channel in (False, True)}
    for per_channel, candidate in candidates.items():
        quantize(single, candidate, per_channel)
    moved = {choice: logit_shift(classifier, texts, candidate) for choice, candidate in candidates.items()}
    per_channel = min(moved, key=moved.__getitem__)
    candidates[per_channel].rename(file)
    return {
        "per_channel": per_channel,
        "mean_logit_shift": moved[per_channel],
        "mean_logit_shift_of_the_other": moved[not per_channel],
    }


def _ngram_in_eight_bits(classifier: "Classifier", texts: Sequence[str], single: Path, file: Path) -> dict[str, Any]:
    """Write the graph with a table in eight bits."""
    from exporters.ngram_graph import write_int8

    network: Any = classifier.network
    write_int8(network, file)
    return {"mean_logit_shift": logit_shift(classifier, texts, file)}


def quantize(single: Path, file: Path, per_channel: bool) -> None:
    """Write the dynamically quantized form of the graph `single` to `file`."""
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().addFilter(_NOT_PREPROCESSED)
    try:
        quantize_dynamic(
            single,
            file,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    finally:
        logging.getLogger().removeFilter(_NOT_PREPROCESSED)


def logit_shift(classifier: "Classifier", texts: Sequence[str], file: Path) -> float:
    """Mean difference between the torch logits and those of a quantized graph, one text at a time."""
    import onnxruntime

    from toolkit.tokenizer import encode

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    theirs = [
        session.run(["logits"], feed(session, np.array([ids]), np.ones((1, len(ids)), np.int64)))[0]
        for ids in encode(classifier.tokenizer, texts)
    ]
    return float(np.abs(np.concatenate(theirs) - classifier.predict_logits(texts)).mean())


def _not_preprocessed(record: object) -> bool:
    """ONNX Runtime advises shape inference first; dynamic quantization of these graphs does not need it."""
    return "pre-process" not in str(getattr(record, "msg", ""))


_NOT_PREPROCESSED = _not_preprocessed
EXPORTER = OnnxInt8()

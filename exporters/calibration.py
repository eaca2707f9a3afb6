"""What the activations of a graph are on calibration texts, and which range of them eight bits should cover."""

import copy
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

PERCENTILE = 99.99
HISTOGRAM_BINS = 2048
SEED = 0


@dataclass(frozen=True, eq=False)
class Activations:
    """One input of a matrix on all calibration texts."""

    low: np.ndarray
    """float64 (channels,): least value of each channel."""
    high: np.ndarray
    """float64 (channels,): largest value of each channel."""
    texts: tuple[np.ndarray, ...]
    """float32 (tokens, channels) of each text."""

    def range(self, way: Literal["minmax", "percentile", "entropy"]) -> tuple[float, float]:
        """Least and largest value that have a code of their own; what lies outside is cut.

        percentile: but 0.01 % of the values. entropy: the range whose codes tell most of the distribution (least
        Kullback-Leibler divergence, Migacz 2017). Both by ONNX Runtime's collector.
        """
        if way == "minmax":
            return float(self.low.min()), float(self.high.max())
        low, high = self._percentile if way == "percentile" else self._entropy
        return float(low), float(high)

    @cached_property
    def _percentile(self) -> tuple[Any, Any]:
        return self._collected("percentile", HISTOGRAM_BINS)

    @cached_property
    def _entropy(self) -> tuple[Any, Any]:
        return self._collected("entropy", 128)

    def _collected(self, method: str, bins: int) -> tuple[Any, Any]:
        from onnxruntime.quantization.calibrate import HistogramCollector

        collector = HistogramCollector(
            method=method,
            symmetric=False,
            num_bins=bins,
            num_quantized_bins=128,
            percentile=PERCENTILE,
            scenario="same",
        )
        with redirect_stdout(StringIO()):  # it prints a line for each text
            for text in self.texts:  # one after the other: it takes no texts of different lengths at once
                collector.collect({"x": [text]})
            return collector.compute_collection_result()["x"][:2]


def calibrate(single: Path, encoded: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, Activations]:
    """The activations `names` of the graph `single` on texts given as token ids, one text at a time."""
    import onnxruntime

    model = onnx.load(single)
    widened = copy.deepcopy(model)
    outputs = list(dict.fromkeys(names))
    for name in outputs:
        widened.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Stronger ones would fuse away what is asked for.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(widened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    taken = {entry.name for entry in session.get_inputs()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    for ids in encoded:
        given = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        values = session.run(outputs, {name: value for name, value in given.items() if name in taken})
        for name, value in zip(outputs, values, strict=True):
            found[name].append(value.reshape(-1, value.shape[-1]))
    return {name: _summary(texts) for name, texts in found.items()}


def _summary(texts: list[np.ndarray]) -> Activations:
    low = np.min([text.min(axis=0) for text in texts], axis=0).astype(np.float64)
    high = np.max([text.max(axis=0) for text in texts], axis=0).astype(np.float64)
    return Activations(low, high, tuple(texts))

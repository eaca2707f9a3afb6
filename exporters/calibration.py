"""Record the activations of a graph on calibration texts and choose their quantization ranges."""

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
    """The input of one matrix product on all calibration texts."""

    low: np.ndarray
    """float64 (channels,): smallest value of each channel."""
    high: np.ndarray
    """float64 (channels,): largest value of each channel."""
    texts: tuple[np.ndarray, ...]
    """float32 (tokens, channels) of each text."""

    def range(self, method: Literal["minmax", "percentile", "entropy"]) -> tuple[float, float]:
        """Return the lower and upper bound of the quantization range; values outside are clipped.

        minmax: all values. percentile: all but 0.01 % of the values. entropy: the range with the smallest
        Kullback-Leibler divergence between the quantized and the original distribution (Migacz 2017). The last two
        are computed by ONNX Runtime's collector.
        """
        if method == "minmax":
            return float(self.low.min()), float(self.high.max())
        low, high = self._percentile if method == "percentile" else self._entropy
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
        with redirect_stdout(StringIO()):  # the collector prints a line for each text
            for text in self.texts:  # one at a time: the collector cannot stack texts of different lengths
                collector.collect({"x": [text]})
            return collector.compute_collection_result()["x"][:2]


def calibrate(reference: Path, encoded: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, Activations]:
    """Return the activations `names` of the graph `reference` on `encoded` texts (token ids), one text at a time."""
    import onnxruntime

    model = onnx.load(reference)
    extended = copy.deepcopy(model)
    outputs = list(dict.fromkeys(names))
    for name in outputs:
        extended.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Higher levels would fuse nodes and remove the activations to record.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(extended.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {entry.name for entry in session.get_inputs()}
    recorded: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
    for ids in encoded:
        feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        values = session.run(outputs, {name: value for name, value in feed.items() if name in inputs})
        for name, value in zip(outputs, values, strict=True):
            recorded[name].append(value.reshape(-1, value.shape[-1]))
    return {name: _summary(texts) for name, texts in recorded.items()}


def _summary(texts: list[np.ndarray]) -> Activations:
    low = np.min([text.min(axis=0) for text in texts], axis=0).astype(np.float64)
    high = np.max([text.max(axis=0) for text in texts], axis=0).astype(np.float64)
    return Activations(low, high, tuple(texts))

"""Record the activations of a graph on calibration texts and choose their quantization ranges.

Activations are reduced text by text: the memory does not grow with the number of texts.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

Method = Literal["minmax", "percentile", "entropy"]
PERCENTILE = 99.99
BINS: dict[Method, int] = {"percentile": 2048, "entropy": 128}
"""Bins of the histogram; more are added for texts with larger values."""


@dataclass(frozen=True, eq=False)
class Activations:
    """The input of one matrix product on all calibration texts."""

    low: np.ndarray
    """float64 (channels,): smallest value of each channel."""
    high: np.ndarray
    """float64 (channels,): largest value of each channel."""
    range: tuple[float, float]
    """Lower and upper bound of the quantization range; values outside are clipped."""


class Recorder:
    """Reduces the input of one matrix product, one text after the other, to its `Activations`.

    minmax: the range of all values. percentile: all but 0.01 % of the values. entropy: the range with the smallest
    Kullback-Leibler divergence between the quantized and the original distribution (Migacz 2017). The last two are
    computed by ONNX Runtime's collector.
    """

    def __init__(self, method: Method) -> None:
        self._low: Any = np.inf
        self._high: Any = -np.inf
        self._collector = None if method == "minmax" else _collector(method)

    def record(self, values: np.ndarray) -> None:
        """Add the float32 values (tokens, channels) of a text."""
        self._low = np.minimum(self._low, values.min(axis=0))
        self._high = np.maximum(self._high, values.max(axis=0))
        if self._collector is not None:
            with redirect_stdout(StringIO()):  # the collector prints a line for each text
                self._collector.collect({"x": [values]})

    def activations(self) -> Activations:
        """Return what was recorded."""
        low, high = self._low.min(), self._high.max()
        if self._collector is not None:
            with redirect_stdout(StringIO()):
                low, high = self._collector.compute_collection_result()["x"][:2]
        return Activations(self._low.astype(np.float64), self._high.astype(np.float64), (float(low), float(high)))


def _collector(method: Method) -> Any:
    from onnxruntime.quantization.calibrate import HistogramCollector

    return HistogramCollector(
        method=method,
        symmetric=False,
        num_bins=BINS[method],
        num_quantized_bins=128,
        percentile=PERCENTILE,
        scenario="same",
    )


def calibrate(
    reference: Path, encoded: Sequence[Sequence[int]], names: Sequence[str], method: Method = "minmax"
) -> dict[str, Activations]:
    """Return the activations `names` of the graph `reference` on `encoded` texts (token ids), one text at a time.

    method: how their ranges are chosen.
    """
    import onnxruntime

    extended = onnx.load(reference)
    recorders = {name: Recorder(method) for name in names}
    for name in recorders:
        extended.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Higher levels would fuse nodes and remove the activations to record.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(extended.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {entry.name for entry in session.get_inputs()}
    for ids in encoded:
        feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        values = session.run([*recorders], {name: value for name, value in feed.items() if name in inputs})
        for recorder, value in zip(recorders.values(), values, strict=True):
            recorder.record(value.reshape(-1, value.shape[-1]))
    return {name: recorder.activations() for name, recorder in recorders.items()}

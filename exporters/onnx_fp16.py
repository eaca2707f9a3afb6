"""onnx-fp16: the graph of onnx-fp32 with weights stored in half precision, for half the size.

A weight is a float16 initializer followed by a Cast to float32, which ONNX Runtime evaluates once when it loads the
model. All computation is in float32, because few CPUs have float16 arithmetic; the target only saves disk space.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.onnx_fp32 import MODEL_FILE, OnnxTarget
from exporters.registry import Candidate, Evidence

if TYPE_CHECKING:
    import onnx

    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

LEAST_VALUES = 256
"""Smaller weights stay in float32: the Cast node alone takes about a hundred bytes."""
LARGEST_HALF = float(np.finfo(np.float16).max)


class OnnxFp16(OnnxTarget):
    """See `exporters.registry.Exporter`."""

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
    ) -> list[Candidate]:
        def write(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
            import onnx

            model = onnx.load(str(reference / MODEL_FILE))
            too_large = halve_weights(model.graph)
            onnx.save(model, str(folder / MODEL_FILE))
            return {"too_large_for_half": too_large}

        return [Candidate("weights in half precision", write)]


def halve_weights(graph: "onnx.GraphProto") -> list[str]:
    """Store each float32 initializer with at least LEAST_VALUES values in half precision, in place.

    Returns: the names of initializers that stay in float32 because a value exceeds the range of half precision.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts, too_large = [], []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < LEAST_VALUES:
            continue
        if np.abs(values).max() > LARGEST_HALF:
            too_large.append(weight.name)
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], f"{name}_single", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]  # nodes are in topological order
    del graph.node[:]
    graph.node.extend(nodes)
    return too_large


EXPORTER = OnnxFp16("onnx-fp16", "ONNX Runtime, float16 weights, float32 computation: half the size", "smaller")

"""onnx-fp16: the graph in single precision, its weights stored in half. Half the size; it computes what onnx-fp32 does.

A weight is a float16 initializer behind a Cast to float32, which ONNX Runtime computes once, when it loads the
model. From then on everything is float32, on every CPU: few of them multiply halves, and size is the point here.
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
"""A Cast takes about a hundred bytes of the file: what has fewer values would gain little or nothing."""
LARGEST_HALF = float(np.finfo(np.float16).max)


class OnnxFp16(OnnxTarget):
    """See `exporters.registry.Exporter`."""

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", single: Path
    ) -> list[Candidate]:
        def write(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
            import onnx

            model = onnx.load(str(single / MODEL_FILE))
            too_large = halve_weights(model.graph)
            onnx.save(model, str(folder / MODEL_FILE))
            return {"too_large_for_half": too_large}

        return [Candidate("weights in half precision", write)]


def halve_weights(graph: "onnx.GraphProto") -> list[str]:
    """Store each float32 initializer of LEAST_VALUES or more in half precision, whatever its shape.

    Returns: names of those that stay as they are, because half precision does not reach their largest value.
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
    nodes = [*casts, *graph.node]  # a node stands after what it takes
    del graph.node[:]
    graph.node.extend(nodes)
    return too_large


EXPORTER = OnnxFp16(
    "onnx-fp16", "ONNX Runtime, weights stored in half precision, computed in single: half the size", "smaller"
)

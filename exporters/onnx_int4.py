"""onnx-int4: int4 matrices and int8 embedding tables, run by ONNX Runtime's MatMulNBits.

Only weights are quantized ahead of time, symmetrically, with one scale per block. ONNX Runtime's own packer does the
same but needs a package (onnx_ir) that hbt does not otherwise depend on. The head stays in float.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.onnx_fp32 import MODEL_FILE, OnnxTarget
from exporters.registry import Candidate, Evidence
from toolkit.utils.errors import InputError

if TYPE_CHECKING:
    import onnx

    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

BLOCKS = (32, 128)
LEAST_BLOCK = 16
"""The smallest block size that MatMulNBits supports."""
DOMAIN = "com.microsoft"
ZERO = 8
"""The code of 0.0, which MatMulNBits assumes if there are no zero points."""
REACH = 7
"""Distance of the largest weight of a block from 0, in quantization steps."""
EIGHT_BIT_ACTIVATIONS = 4
"""Accuracy level of the fastest kernels. They quantize each block of a row separately, so predictions do not depend on
batch composition."""


class OnnxInt4(OnnxTarget):
    """See `exporters.registry.Exporter`."""

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
    ) -> list[Candidate]:
        import onnx

        from exporters.int8_graph import parts_of
        from toolkit.modeling.ngram import NgramNetwork

        if isinstance(classifier.network, NgramNetwork):
            raise InputError("--target onnx-int4: an ngram student has no matrices to quantize; use --target onnx-int8")
        parts = parts_of(onnx.load(str(reference / MODEL_FILE)).graph)
        return [_candidate(reference / MODEL_FILE, block, parts) for block in BLOCKS]


def _candidate(reference: Path, block: int, parts: tuple[str, ...]) -> Candidate:
    def write(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
        import onnx

        from exporters.int8_graph import drop_unused, quantize_tables

        model = onnx.load(str(reference))
        quantize_matrices(model, block, in_float)
        quantize_tables(model.graph, in_float)
        drop_unused(model.graph)
        onnx.save(model, str(folder / MODEL_FILE))
        return {"block": block}

    return Candidate(f"blocks of {block}", write, parts)


def quantize_matrices(model: "onnx.ModelProto", block: int, in_float: frozenset[str]) -> None:
    """Replace products with constant matrices by MatMulNBits, in place, except the head and the parts `in_float`.

    The float matrices remain in the graph: remove them with `exporters.int8_graph.drop_unused`.

    block: number of weights that share a scale, a power of 2, at least LEAST_BLOCK; reduced for small matrices.
    in_float: names as returned by `exporters.int8_graph.part_name`.
    """
    from onnx import helper, numpy_helper

    from exporters.int8_graph import part_name, weight_nodes

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    chosen = {node.output[0] for node in weight_nodes(graph) if part_name(node) not in in_float}
    packed: set[str] = set()
    nodes = []
    for node in graph.node:
        transposed = _is_transposed(node) if node.output[0] in chosen else None
        if transposed is None:
            nodes.append(node)
            continue
        matrix = numpy_helper.to_array(weights[node.input[1]])
        matrix = matrix if transposed else matrix.T  # (outputs, inputs)
        size = min(block, max(LEAST_BLOCK, 1 << (matrix.shape[1] - 1).bit_length()))
        stored = f"{node.input[1]}_int4{'_transposed' if transposed else ''}"
        if stored not in packed:  # layers may share a matrix
            codes, scales = pack(matrix, size)
            graph.initializer.append(numpy_helper.from_array(codes, stored))
            graph.initializer.append(numpy_helper.from_array(scales.ravel(), f"{stored}_scales"))
            packed.add(stored)
        bias = node.input[2] if len(node.input) > 2 else ""
        product = f"{node.output[0]}_product" if bias else node.output[0]
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], stored, f"{stored}_scales"],
                [product],
                node.name,
                domain=DOMAIN,
                K=matrix.shape[1],
                N=matrix.shape[0],
                bits=4,
                block_size=size,
                accuracy_level=EIGHT_BIT_ACTIVATIONS,
            )
        )
        if bias:
            nodes.append(helper.make_node("Add", [product, bias], [node.output[0]], f"{node.name}_bias"))
    del graph.node[:]
    graph.node.extend(nodes)
    if DOMAIN not in {used.domain for used in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def pack(matrix: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a float matrix (outputs, inputs) as int4 codes and scales in the format of MatMulNBits.

    Returns: codes, uint8 (outputs, blocks, block / 2), two per byte with the first in the low half; and scales,
    float32 (outputs, blocks). A weight is (code - ZERO) × scale.
    """
    outputs, inputs = matrix.shape
    blocks = -(-inputs // block)
    padded = np.zeros((outputs, blocks * block), dtype=np.float32)
    padded[:, :inputs] = matrix
    values = padded.reshape(outputs, blocks, block)
    # Scales of largest / -8 have a smaller squared error but changed the logits of three Bangla classifiers 1.3 to 4
    # times as much. Their pretrained weights lie on exactly that grid (blocks of 32, as in GGUF's Q4_0), so rounding
    # to it undoes the changes made by fine-tuning.
    scales = np.abs(values).max(axis=2, keepdims=True) / np.float32(REACH)
    scales[scales == 0] = 1
    codes = (np.rint(values / scales) + ZERO).clip(ZERO - REACH, ZERO + REACH).astype(np.uint8)
    return codes[..., 0::2] | codes[..., 1::2] << 4, scales[..., 0]


def _is_transposed(node: "onnx.NodeProto") -> bool | None:
    """Return whether the matrix of a MatMul or Gemm is stored as (outputs, inputs); None if the Gemm is not plain."""
    from onnx import helper

    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    return bool(attributes.get("transB", 0))


EXPORTER = OnnxInt4(
    "onnx-int4",
    "ONNX Runtime, int4 matrices and int8 embeddings: the smallest, seldom the fastest",
    "smaller",
)

"""Rewrite an ONNX graph with int8 matrices and embedding tables, under one of several quantization schemes.

ONNX Runtime's own quantizers compute the scales of activations in two ways: one scale per batch at run time (dynamic)
or one range for all texts (static). The graph is rewritten here, with ONNX Runtime's kernels, to offer two more: one
scale per token, and static ranges after smoothing (Xiao et al. 2023), which moves large activation channels into the
weights. With static and per-token scales, predictions do not depend on batch composition.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from exporters import calibration
from exporters.calibration import Activations

Method = Literal["dynamic", "per token", "minmax", "percentile", "entropy", "smoothed"]
STATIC: tuple[Method, ...] = ("smoothed", "minmax", "percentile", "entropy")
CONTRIB = "com.microsoft"
TABLE_ROWS = 64
"""Tables with fewer rows stay in float: they take little space."""
SMOOTHING = 0.8
"""Migration strength (alpha of SmoothQuant): the share of a channel's scale that moves into the weights, from 0 to 1.
Of 0.7, 0.8 and 0.9, the 12-layer Bangla classifier was nearest to single precision at 0.7, the 4-layer one at 0.9; 0.8
is a compromise."""
TINY = 1e-9


@dataclass(frozen=True)
class Scheme:
    """A quantization scheme of a graph."""

    method: Method
    """How the scales of activations are computed."""
    per_column: bool = True
    """One scale per column of a matrix (per-channel) or one for the matrix (per-tensor)."""
    inputs: Literal["uint8", "int8"] = "uint8"
    """Data type of quantized activations; always uint8 for the dynamic method."""
    weights: Literal["int8", "uint8"] = "int8"
    """Data type of quantized matrices."""
    reduced: bool = False
    """7-bit weights: x86 without 8-bit dot products accumulates in 16 bits, which 7-bit weights cannot overflow."""
    tables: bool = True
    """Whether embedding tables are quantized to int8, too."""

    @property
    def static(self) -> bool:
        """Return whether the ranges of activations come from calibration."""
        return self.method in STATIC

    @property
    def ranges(self) -> calibration.Method:
        """Return how the ranges of activations are chosen; smoothing starts from the smallest and largest values."""
        return "percentile" if self.method == "percentile" else "entropy" if self.method == "entropy" else "minmax"

    @property
    def name(self) -> str:
        """Return the display name, such as `static, smoothed, U8S8`."""
        method = f"static, {self.method}" if self.static else self.method
        codes = {"uint8": "U8", "int8": "S8"}
        parts = [method, codes[self.inputs] + codes[self.weights]]
        parts += ["per-tensor weights"] if not self.per_column else []
        parts += ["7-bit weights"] if self.reduced else []
        parts += ["float embeddings"] if not self.tables else []
        return ", ".join(parts)


def weight_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the products with a constant matrix, in graph order, without the head that outputs the logits."""
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def fits(node: onnx.NodeProto) -> bool:
        if node.op_type not in ("MatMul", "Gemm") or len(constants.get(node.input[1], onnx.TensorProto()).dims) != 2:
            return False
        if constants[node.input[1]].data_type != onnx.TensorProto.FLOAT or node.input[0] in constants:
            return False
        defaults = {"alpha": 1.0, "beta": 1.0, "transA": 0}
        plain = all(
            helper.get_attribute_value(each) == defaults[each.name] for each in node.attribute if each.name in defaults
        )
        return plain and not (node.op_type == "Gemm" and node.output[0] == graph.output[0].name)

    return [node for node in graph.node if fits(node)]


def table_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the lookups in constant tables with at least TABLE_ROWS rows."""
    tables = {
        tensor.name
        for tensor in graph.initializer
        if len(tensor.dims) == 2 and tensor.dims[0] >= TABLE_ROWS and tensor.data_type == onnx.TensorProto.FLOAT
    }
    row_lookup = {"axis": 0}
    return [
        node
        for node in graph.node
        if node.op_type == "Gather"
        and node.input[0] in tables
        and all(helper.get_attribute_value(each) == row_lookup.get(each.name) for each in node.attribute)
    ]


def parts_of(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the names of all parts that can be quantized."""
    return tuple(part_name(node) for node in (*table_nodes(graph), *weight_nodes(graph)))


def part_name(node: onnx.NodeProto) -> str:
    """Return the name of a part: `encoder/layer.0/output/dense` for the node `/encoder/layer.0/output/dense/MatMul`."""
    return (node.name or node.output[0]).strip("/").removesuffix(f"/{node.op_type}")


def quantize_matrices(
    graph: onnx.GraphProto, scheme: Scheme, activations: Mapping[str, Activations], in_float: frozenset[str]
) -> None:
    """Quantize the products with constant matrices of `graph` in place, except those named in `in_float`.

    The model must then import the operator set CONTRIB.

    activations: calibration data for the inputs of the products; only static schemes use it.
    """
    writer = _Writer(graph, scheme, activations)
    chosen = [node for node in weight_nodes(graph) if part_name(node) not in in_float]
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in chosen:
        groups.setdefault(node.input[0], []).append(node)
    first = {nodes[0].output[0]: nodes for nodes in groups.values()}
    replaced = {node.output[0] for node in chosen}
    for node in list(graph.node):
        if node.output[0] in first:
            writer.products(first[node.output[0]])
        if node.output[0] not in replaced and node.output[0] not in writer.folded:
            writer.nodes.append(node)
    _replace_nodes(graph, writer.nodes)


def quantize_tables(graph: onnx.GraphProto, in_float: frozenset[str]) -> None:
    """Quantize the tables of `graph` to int8 with one scale per row, in place, except those named in `in_float`."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    known = set(constants)
    chosen = {node.output[0] for node in table_nodes(graph) if part_name(node) not in in_float}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] not in chosen:
            nodes.append(node)
            continue
        (name, rows), out = node.input, node.output[0]
        if f"{name}_codes" not in known:
            known.add(f"{name}_codes")
            codes, scales = _quantize_rows(numpy_helper.to_array(constants[name]))
            graph.initializer.append(numpy_helper.from_array(codes, f"{name}_codes"))
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
        nodes += [
            helper.make_node("Gather", [f"{name}_codes", rows], [f"{out}_codes"]),
            helper.make_node("Cast", [f"{out}_codes"], [f"{out}_wide"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [f"{name}_scales", rows], [f"{out}_scales"]),
            helper.make_node("Mul", [f"{out}_wide", f"{out}_scales"], [out]),
        ]
    _replace_nodes(graph, nodes)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the constants that no node uses."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 codes (rows, width) and float32 scales (rows, 1)."""
    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), TINY) / 127
    return np.rint(table / scales).astype(np.int8), scales.astype(np.float32)


def _replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


@dataclass(frozen=True)
class _Input:
    """A quantized activation."""

    codes: str
    scale: str
    zero: str
    factors: np.ndarray | None = None
    """float64 (channels,): factors for the rows of the weights."""
    token_scale: str | None = None
    """Name of the tensor (…, tokens, 1) that the product is multiplied by."""


class _Writer:
    """Collect the nodes of the new graph in order, and add the constants that they need."""

    def __init__(self, graph: onnx.GraphProto, scheme: Scheme, activations: Mapping[str, Activations]) -> None:
        self.graph, self.scheme, self.activations = graph, scheme, activations
        self.nodes: list[onnx.NodeProto] = []
        self.folded: set[str] = set()
        """Outputs of additions that were folded into a product."""
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.users = Counter(name for node in graph.node for name in node.input)
        self.additions = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}

    def constant(self, name: str, value: Any) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
            self.graph.initializer.append(self.constants[name])
        return name

    def node(self, kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, list(outputs), **attributes))
        return outputs[0]

    def products(self, nodes: list[onnx.NodeProto]) -> None:
        """Write the quantized products of `nodes`, which share one input."""
        matrices = [self.matrix(node) for node in nodes]
        shared = any(self.users[node.input[1]] > 1 for node in nodes)
        quantized = self.quantized(nodes[0].input[0], matrices, shared)
        for node, matrix in zip(nodes, matrices, strict=True):
            bias, out = self.bias(node)
            codes, scales, zero = self.weights(node.input[1], matrix, quantized.factors)
            inputs = [quantized.codes, codes, quantized.scale, scales, quantized.zero, zero]
            if quantized.token_scale is None:
                self.node("MatMulIntegerToFloat", [*inputs, bias] if bias else inputs, out, domain=CONTRIB)
                continue
            product = self.node("MatMulIntegerToFloat", inputs, f"{out}_product", domain=CONTRIB)
            scaled = self.node("Mul", [product, quantized.token_scale], f"{out}_scaled" if bias else out)
            if bias:
                self.node("Add", [scaled, bias], out)

    def matrix(self, node: onnx.NodeProto) -> np.ndarray:
        """Return the matrix of a product, float64 (channels, columns)."""
        value = numpy_helper.to_array(self.constants[node.input[1]]).astype(np.float64)
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        return value.T if transposed else value

    def bias(self, node: onnx.NodeProto) -> tuple[str, str]:
        """Return the name of the bias of a product ("" if there is none) and of the output that includes it."""
        out = node.output[0]
        if node.op_type == "Gemm":
            return (node.input[2] if len(node.input) > 2 else ""), out
        after = self.additions.get(out)
        if after is None or self.users[out] != 1:
            return "", out
        other = next(name for name in after.input if name != out)
        if other not in self.constants or len(self.constants[other].dims) != 1:
            return "", out
        self.folded.add(after.output[0])
        return other, after.output[0]

    def quantized(self, name: str, matrices: list[np.ndarray], shared: bool) -> _Input:
        """Write the nodes that quantize the activation `name`. shared: some matrix is used with other inputs, too."""
        scheme = self.scheme
        if scheme.method == "dynamic":
            made = (f"{name}_codes", f"{name}_scale", f"{name}_zero")
            self.node("DynamicQuantizeLinear", [name], *made)
            return _Input(*made)
        if scheme.method == "per token":
            return self.per_token(name)
        activations = self.activations[name]
        if scheme.method != "smoothed" or shared:
            scale, zero = self.step(*activations.range)
            inputs = [name, self.constant(f"{name}_scale", np.float32(scale)), self.constant(f"{name}_zero", zero)]
            return _Input(self.node("QuantizeLinear", inputs, f"{name}_codes"), inputs[1], inputs[2])
        factors = smoothing(activations, matrices)
        scale, zero = self.step(float((activations.low / factors).min()), float((activations.high / factors).max()))
        smooth = self.constant(f"{name}_smooth", (1 / (factors * scale)).astype(np.float32))
        one = self.constant("hbt_one", np.float32(1))
        smoothed = self.node("Mul", [name, smooth], f"{name}_smoothed")
        zero_name = self.constant(f"{name}_zero", zero)
        codes = self.node("QuantizeLinear", [smoothed, one, zero_name], f"{name}_codes")
        return _Input(codes, one, zero_name, factors * scale)

    def step(self, low: float, high: float) -> tuple[float, np.generic]:
        """Return scale and zero point of a range, extended to include 0 so that 0.0 is represented exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        if self.scheme.inputs == "int8":
            return max(-low, high, TINY) / 127, np.int8(0)
        scale = max(high - low, TINY) / 255
        return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))

    def per_token(self, name: str) -> _Input:
        """Write the nodes that scale each token by its largest absolute value and quantize it."""
        size = self.node("Abs", [name], f"{name}_size")
        largest = self.node("ReduceMax", [size], f"{name}_largest", axes=[-1], keepdims=1)
        least = self.constant("hbt_tiny", np.float32(TINY))
        largest = self.node("Max", [largest, least], f"{name}_at_least_tiny")
        steps = self.node("Div", [self.constant("hbt_127", np.float32(127)), largest], f"{name}_steps")
        spread = self.node("Mul", [name, steps], f"{name}_spread")
        one = self.constant("hbt_one", np.float32(1))
        kind = np.uint8(128) if self.scheme.inputs == "uint8" else np.int8(0)
        zero = self.constant(f"hbt_zero_{self.scheme.inputs}", kind)
        codes = self.node("QuantizeLinear", [spread, one, zero], f"{name}_codes")
        return _Input(codes, self.constant("hbt_1_127th", np.float32(1 / 127)), zero, token_scale=largest)

    def weights(self, name: str, matrix: np.ndarray, factors: np.ndarray | None) -> tuple[str, str, str]:
        """Return the names of codes, scales and zero point of a matrix whose rows are multiplied by `factors`."""
        if factors is not None:
            matrix = matrix * factors[:, None]
        reach = 63 if self.scheme.reduced else 127
        scales = np.maximum(np.abs(matrix).max(axis=0 if self.scheme.per_column else None), TINY) / reach
        codes = np.rint(matrix / scales).astype(np.int8)
        scale_name = self.constant(f"{name}_scales", scales.astype(np.float32))
        if self.scheme.weights == "int8":
            return self.constant(f"{name}_codes", codes), scale_name, ""
        zero = self.constant(f"{name}_zeros", np.full(scales.shape, 128, dtype=np.uint8))
        return self.constant(f"{name}_codes", (codes.astype(np.int16) + 128).astype(np.uint8)), scale_name, zero


def smoothing(activations: Activations, matrices: list[np.ndarray]) -> np.ndarray:
    """Return the smoothing factors, float64 (channels,), that move into the weights (Xiao et al. 2023, eq. 4).

    matrices: all matrices (channels, columns) that are multiplied with these activations.
    """
    size = np.maximum(np.maximum(-activations.low, activations.high), TINY)
    weight = np.maximum(np.concatenate([np.abs(matrix) for matrix in matrices], axis=1).max(axis=1), TINY)
    return np.maximum(size, 1e-5) ** SMOOTHING / np.maximum(weight, 1e-5) ** (1 - SMOOTHING)

"""Operations and bytes that an artifact needs for a text, from its ONNX graph or its n-gram table.

Only what no implementation can leave out: products of matrices, their weights, and the rows read of tables.
Normalization, activation functions and softmax are left out, as is usual: a faster implementation could hide them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limit.parts import tensor_bytes

PRODUCTS = {
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "FusedMatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "QLinearMatMul": (0, 3),
    "MatMulNBits": (0, 1),
}
"""Products of matrices in ONNX and ONNX Runtime, and which inputs are the matrices."""
INT8 = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul")
PROBES = (8, 16, 32, 48)
"""Numbers of tokens at which shapes are read. Counts are polynomials of degree two: three give them, one checks."""
CACHE_LINE = 64


@dataclass(frozen=True)
class Work:
    """What a text needs. An operation is one multiplication or one addition."""

    int8_operations: float = 0.0
    fp32_operations: float = 0.0
    weight_bytes: float = 0.0
    """Matrices, which every text reads once."""
    table_bytes: float = 0.0
    """Rows read of embedding tables; of an n-gram table, the cache lines they are in."""
    table_reads: float = 0.0

    @property
    def bytes(self) -> float:
        """All bytes."""
        return self.weight_bytes + self.table_bytes


def mean_work(graph: Path, lengths: Sequence[int]) -> Work:
    """Return the mean work of the graph of a transformer over texts of these numbers of tokens.

    Raises: ValueError if its counts are no polynomial of the length.
    """
    found = work_at(graph, PROBES)
    names = list(Work.__dataclass_fields__)
    table = np.array([[getattr(each, name) for name in names] for each in found])  # (probes, counts)
    basis = np.vander(PROBES[:3], 3).astype(float)
    fitted = np.linalg.solve(basis, table[:3])  # (3, counts)
    expected = np.vander(PROBES[3:], 3) @ fitted
    if not np.allclose(expected, table[3:], rtol=1e-6, atol=1):
        raise ValueError("the operations of this graph are no polynomial of the number of tokens")
    powers = np.vander(np.asarray(lengths, dtype=float), 3).mean(axis=0)
    return Work(**dict(zip(names, (powers @ fitted).tolist(), strict=True)))


def work_at(file: Path, lengths: Sequence[int]) -> list[Work]:
    """Return the work of one text of each length, by the shapes that ONNX Runtime finds for products and tables."""
    import onnx

    model = onnx.load(str(file))
    sizes = {each.name: (tuple(each.dims), tensor_bytes(each)) for each in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    wanted = [node for node in model.graph.node if _counts(node, sizes, producers)]
    names = [name for node in wanted for name in _shaped(node) if name not in sizes]
    run = _shapes(model, [*dict.fromkeys(names)])
    constant = {name: shape for name, (shape, _) in sizes.items()}
    return [_sum(wanted, constant | run(length), sizes, producers) for length in lengths]


def _counts(node: Any, sizes: dict[str, Any], producers: dict[str, Any]) -> bool:
    """Return whether a node is a product of matrices, or reads rows of a table."""
    return node.op_type in PRODUCTS or (
        node.op_type == "Gather" and _stored(node.input[0], sizes, producers) is not None
    )


def _shaped(node: Any) -> list[str]:
    """Return the values whose shapes are needed."""
    if node.op_type == "Gather":
        return [node.input[1]]
    return [node.input[place] for place in PRODUCTS[node.op_type]]


def _stored(name: str, sizes: dict[str, Any], producers: dict[str, Any]) -> str | None:
    """Return the initializer that a value is, perhaps in int8 and scaled or cast; None if it is computed."""
    while name not in sizes:
        node = producers.get(name)
        if node is None or node.op_type not in ("DequantizeLinear", "Cast", "Transpose", "Identity"):
            return None
        name = node.input[0]
    return name


def _is_int8(node: Any, producers: dict[str, Any]) -> bool:
    """Return whether a product is one of int8 codes: by its kind, or as ONNX Runtime fuses it with its scales."""
    if node.op_type in INT8:
        return True
    inputs = [producers.get(node.input[place]) for place in PRODUCTS[node.op_type]]
    return all(each is not None and each.op_type == "DequantizeLinear" for each in inputs)


def _sum(
    nodes: Sequence[Any], shapes: dict[str, tuple[int, ...]], sizes: dict[str, Any], producers: dict[str, Any]
) -> Work:
    total = dict.fromkeys(Work.__dataclass_fields__, 0.0)
    for node in nodes:
        if node.op_type == "Gather":
            table = _stored(node.input[0], sizes, producers)
            if table is None:
                continue
            dims, size = sizes[table]
            rows = int(np.prod(shapes[node.input[1]], initial=1))
            total["table_bytes"] += rows * size / dims[0]
            total["table_reads"] += rows
            continue
        left, right = (node.input[place] for place in PRODUCTS[node.op_type])
        operations = _product(node, shapes[left], shapes[right])
        total["int8_operations" if _is_int8(node, producers) else "fp32_operations"] += operations
        weights = _stored(right, sizes, producers)
        if weights is not None:
            total["weight_bytes"] += sizes[weights][1]
    return Work(**total)


def _product(node: Any, left: tuple[int, ...], right: tuple[int, ...]) -> float:
    """Return 2 · batch · m · k · n."""
    set_to = {each.name: each.i for each in node.attribute}
    if node.op_type == "MatMulNBits":  # its weights are in blocks
        return 2.0 * float(np.prod(left)) * set_to["N"]
    columns = right[-2] if set_to.get("transB") and len(right) > 1 else right[-1] if len(right) > 1 else 1
    inner = right[-1] if set_to.get("transB") else right[-2 if len(right) > 1 else -1]
    batch = max(float(np.prod(left[:-2])), float(np.prod(right[:-2])))
    rows = np.prod(left[-2:]) / inner if len(left) > 1 else 1
    return 2.0 * batch * float(rows) * inner * columns


def _shapes(model: Any, names: Sequence[str]) -> Any:
    """Return a function from a number of tokens to the shape of each named value."""
    import onnx
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {each.name for each in copy.graph.output} | {each.name for each in copy.graph.input}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(length: int) -> dict[str, tuple[int, ...]]:
        feed = {each.name: np.ones((1, length), dtype=np.int64) for each in session.get_inputs()}
        values = session.run([name for name in names if name not in feed], feed)
        found = dict(zip([name for name in names if name not in feed], values, strict=True))
        return {name: value.shape for name, value in (found | feed).items()}

    return run


def ngram_work(ids: Sequence[Sequence[int]], outputs: int, space_id: int = 2, longest: int = 5) -> Work:
    """Return the mean work of an n-gram model: a row for each n-gram of two to `longest` characters within words.

    outputs: columns of the table; a text adds as many numbers per row. Reads are random, so each takes a cache line.
    """
    reads = sum(_ngrams(each, space_id, longest) for each in ids) / len(ids)
    lines = -(-outputs // CACHE_LINE)
    return Work(int8_operations=2 * reads * outputs, table_bytes=reads * lines * CACHE_LINE, table_reads=reads)


def _ngrams(ids: Sequence[int], space_id: int, longest: int) -> int:
    """Return the number of n-grams: an n-gram may start or end with a space, and has none inside."""
    count, length = 0, 1
    for char in ids[1:]:
        count += min(length, longest - 1)
        length = 1 if char == space_id else length + 1
    return count

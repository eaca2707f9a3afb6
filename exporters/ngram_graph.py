"""The sparse student (`toolkit.ngram`) as an ONNX graph, written by hand: each node costs about a microsecond.

A convolution with weights 0 and 1 lays the windows of characters side by side and counts, for each length of
n-gram, what keeps a window from being one (a space inside, or an end in the padding). One integer product then
gives every polynomial hash, far below zero where anything was counted; all of these become row -1, and the table
is turned so that its row of zeros is the last. Input: input_ids int64 (batch, tokens), padded with 0; output:
logits float32 (batch, labels); both axes of the input are free.

In eight bits the table has one scale a column. The sums are of integers, thus exact, and the scales come after
them: no score depends on what else is in a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolkit.modeling.ngram import LONGEST, MODULUS, MULTIPLIER, SHORTEST, SPACE_ID, NgramNetwork

OPSET, IR_VERSION = 17, 8
LENGTHS = tuple(range(SHORTEST, LONGEST + 1))
NOT_AN_NGRAM = -(2**60)
"""Times 4, the most that is counted, it fits into 63 bits; a hash before its modulo stays below 2^58."""


@dataclass(frozen=True)
class Table:
    """The network's table as it stands in the graph."""

    values: np.ndarray
    """(rows, 1 + outputs): squared idf, then weights; as they are in float32, or codes in int8."""
    scales: np.ndarray
    """float32 (1 + outputs,): what the sum of a column is multiplied by."""


def write_fp32(network: NgramNetwork, file: Path) -> None:
    """Write the graph of `network` in single precision."""
    values = network.table.detach().numpy()
    _write(Table(values, np.ones(values.shape[1], dtype=np.float32)), network.intercept.detach().numpy(), file)


def write_int8(network: NgramNetwork, file: Path) -> None:
    """Write the graph of `network` with a table in eight bits."""
    _write(in_eight_bits(network), network.intercept.detach().numpy(), file)


def in_eight_bits(network: NgramNetwork) -> Table:
    """The table as codes from -127 to 127: a value is code × |code| × the scale of its column.

    Most weights are small and few are large: steps that grow with the value move logits less than equal steps over
    the whole range (`benchmarks.ngram_choices` measures both).
    """
    values = network.table.detach().numpy().astype(np.float64)
    reach = np.abs(values).max(axis=0)
    reach[reach == 0] = 1.0
    codes = np.sign(values) * np.rint(127 * np.sqrt(np.abs(values) / reach))
    return Table(codes.astype(np.int8), (reach / 127**2).astype(np.float32))


class _Graph:
    """Nodes and constants as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, kind: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=kind), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def _write(table: Table, intercept: np.ndarray, file: Path) -> None:
    graph = _Graph()
    _logits(graph, _sums(graph, _rows(graph, len(table.values)), table), table.scales, intercept)
    labels = max(2, len(intercept))
    made = helper.make_graph(
        graph.nodes,
        "ngram",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", labels])],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))


def _rows(graph: _Graph, rows: int) -> str:
    """The row of each window, counted from the second on: (batch, lengths, tokens), -1 where there is no n-gram."""
    # A character as itself and cut at 1, 2 and 3, from which PAD and SPACE follow by additions (see `_unfolding`).
    caps = graph.constant("caps", np.reshape([2**40, 1, 2, 3], (4, 1)), np.int64)
    apart = graph.node("Unsqueeze", ["input_ids", graph.constant("one", [1], np.int64)], "apart")
    capped = graph.node("Min", [apart, caps], "capped")  # (batch, 4, tokens)
    real = graph.node("Cast", [capped], "capped_real", to=TensorProto.FLOAT)
    weights, bias = _unfolding()
    how = {"pads": [0, LONGEST - 1], "kernel_shape": [LONGEST]}
    inputs = [real, graph.constant("unfold", weights, np.float32), graph.constant("unfold_bias", bias, np.float32)]
    unfolded = graph.node("Conv", inputs, "unfolded", **how)  # (batch, 5 characters + 4 counts, tokens)
    whole = graph.node("Cast", [unfolded], "unfolded_whole", to=TensorProto.INT64)
    hashes = graph.node("MatMul", [graph.constant("powers", _powers(), np.int64), whole], "hashes")
    hashes = graph.node("Max", [hashes, graph.constant("none", -1, np.int64)], "hashes_or_none")
    # fmod: the sign is that of the hash, so -1 stays.
    hashes = graph.node("Mod", [hashes, graph.constant("modulus", MODULUS, np.int64)], "hashes_cut", fmod=1)
    return graph.node("Mod", [hashes, graph.constant("last_row", rows - 1, np.int64)], "rows", fmod=1)


def _sums(graph: _Graph, rows: str, table: Table) -> str:
    """(batch, 1 + outputs): the sum of each column over the n-grams, before its scale."""
    turned = graph.constant("table", np.roll(table.values, -1, axis=0), table.values.dtype)
    met = graph.node("Gather", [turned, rows], "met")  # (batch, lengths, tokens, 1 + outputs)
    # Either sum is exact, or as good as that: 4,096 windows of 127² at most, or single precision summed up in double.
    eight = table.values.dtype == np.int8
    met = graph.node("Cast", [met], "met_wide", to=TensorProto.INT32 if eight else TensorProto.DOUBLE)
    if eight:
        met = graph.node("Mul", [met, graph.node("Abs", [met], "met_size")], "met_squared")
    sums = graph.node("ReduceSum", [met, graph.constant("windows", [1, 2], np.int64)], "sums_wide", keepdims=0)
    return graph.node("Cast", [sums], "sums", to=TensorProto.FLOAT)


def _logits(graph: _Graph, sums: str, scales: np.ndarray, intercept: np.ndarray) -> None:
    """Divide by the norm; scales, intercept and, of one output, its two signs are a last matrix and bias."""
    first = [graph.constant(name, [value], np.int64) for name, value in (("start", 0), ("end", 1), ("axis", 1))]
    squares = graph.node("Slice", [sums, *first], "squares")  # (batch, 1)
    squares = graph.node("Max", [squares, graph.constant("least", 1 / scales[0], np.float32)], "squares_at_least_1")
    norm = graph.node("Sqrt", [squares], "norm")
    scores = graph.node("Div", [sums, norm], "scores")  # (batch, 1 + outputs), the first of no use
    signs = np.array([[-0.5, 0.5]]) if len(intercept) == 1 else np.eye(len(intercept))  # (outputs, labels)
    matrix = (scales[1:, None].astype(np.float64) / np.sqrt(np.float64(scales[0]))) * signs
    matrix = np.concatenate([np.zeros_like(matrix[:1]), matrix])
    bias = graph.constant("intercept", intercept @ signs, np.float32)
    graph.node("Gemm", [scores, graph.constant("to_labels", matrix, np.float32), bias], "logits")


def _unfolding() -> tuple[np.ndarray, np.ndarray]:
    """Weights (5 characters + 4 counts, 4, 5) and bias of a convolution that is exact for ids below 2^24.

    Of a character c: min(c, 1) is 0 for PAD alone, and 2 min(c, 2) - min(c, 1) - min(c, 3) is 1 for SPACE alone.
    """
    assert SPACE_ID == 2
    weights = np.zeros((LONGEST + len(LENGTHS), 4, LONGEST))
    bias = np.zeros(LONGEST + len(LENGTHS))
    for place in range(LONGEST):
        weights[place, 0, place] = 1
    for count, length in enumerate(LENGTHS, LONGEST):
        weights[count, 1:, 1 : length - 1] = np.reshape([-1, 2, -1], (3, 1))
        weights[count, 1, length - 1] = -1
        bias[count] = 1
    return weights, bias


def _powers() -> np.ndarray:
    """int64 (4 lengths, 5 characters + 4 counts): what makes the polynomial hash, before its modulo, of a window."""
    powers = np.zeros((len(LENGTHS), LONGEST + len(LENGTHS)), dtype=np.int64)
    for row, length in enumerate(LENGTHS):
        powers[row, :length] = [pow(MULTIPLIER, length - 1 - place, MODULUS) for place in range(length)]
        powers[row, LONGEST + row] = NOT_AN_NGRAM
    return powers

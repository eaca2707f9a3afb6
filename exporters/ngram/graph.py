"""Write the ngram student (`toolkit.modeling.ngram`) as an ONNX graph with few nodes: each takes about a microsecond.

A convolution with fixed weights extracts the windows of characters. For each n-gram length, it also counts the reasons
why a window is not an n-gram: a space inside, or an end in the padding. One integer product then computes all
polynomial hashes, far below zero where anything was counted. These negative hashes become row -1, and the table is
rolled so that its row of zeros is the last. Words are the differences, from space to space, of a running sum of the
squared hashes of their windows. Input: input_ids int64 (batch, tokens), padded with 0. Output: logits
float32 (batch, labels). Both input axes are dynamic.

The int8 table has one scale per column. Sums of integer codes are exact and are scaled afterwards, so predictions do
not depend on batch composition.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporters.ngram.tables import Table, quantize_table
from toolkit.modeling.ngram import LONGEST, MODULUS, MULTIPLIER, SHORTEST, SPACE_ID, WORD_WINDOW, NgramNetwork

OPSET, IR_VERSION = 17, 8
LENGTHS = tuple(range(SHORTEST, LONGEST + 1))
NOT_AN_NGRAM = -(2**60)
"""Times 4, the largest count, it fits into 63 bits; a hash before the modulo stays below 2^58."""


def write_fp32(network: NgramNetwork, file: Path) -> None:
    """Write the graph of `network` in single precision."""
    values = network.table.detach().numpy()
    _write(Table(values, np.ones(values.shape[1], dtype=np.float32)), network, file)


def write_int8(network: NgramNetwork, file: Path) -> None:
    """Write the graph of `network` with an int8 table."""
    _write(quantize_table(network), network, file)


class _Graph:
    """Collect nodes and constants in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, kind: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=kind), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def _write(table: Table, network: NgramNetwork, file: Path) -> None:
    graph, intercept = _Graph(), network.intercept.detach().numpy()
    rows = _rows(graph, network.config.rows - network.config.word_rows, network.config.word_rows)
    _logits(graph, _sums(graph, rows, table), table.scales, intercept)
    labels = max(2, len(intercept))
    written = helper.make_graph(
        graph.nodes,
        "ngram",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", labels])],
        graph.constants,
    )
    model = helper.make_model(written, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(file))


def _rows(graph: _Graph, rows: int, word_rows: int) -> str:
    """Return the name of the rows of the n-grams (batch, lengths, tokens), minus 1; -1 where there is no n-gram.

    rows: those of windows of characters; `word_rows` others follow. Words and pairs count as two more lengths.
    """
    # Each character id, unclipped and clipped at 1, 2 and 3: `_unfolding` derives PAD and SPACE from these by addition.
    caps = graph.constant("caps", np.reshape([2**40, 1, 2, 3], (4, 1)), np.int64)
    expanded = graph.node("Unsqueeze", ["input_ids", graph.constant("one", [1], np.int64)], "expanded")
    capped = graph.node("Min", [expanded, caps], "capped")  # (batch, 4, tokens)
    real = graph.node("Cast", [capped], "capped_real", to=TensorProto.FLOAT)
    weights, bias = _unfolding()
    attributes = {"pads": [0, LONGEST - 1], "kernel_shape": [LONGEST]}
    inputs = [real, graph.constant("unfold", weights, np.float32), graph.constant("unfold_bias", bias, np.float32)]
    unfolded = graph.node("Conv", inputs, "unfolded", **attributes)  # (batch, 5 characters + 4 counts, tokens)
    integers = graph.node("Cast", [unfolded], "unfolded_integers", to=TensorProto.INT64)
    hashes = graph.node("MatMul", [graph.constant("powers", _powers(), np.int64), integers], "hashes")
    hashes = graph.node("Max", [hashes, graph.constant("none", -1, np.int64)], "hashes_or_none")
    # fmod keeps the sign of the hash, so -1 stays -1.
    hashes = graph.node("Mod", [hashes, graph.constant("modulus", MODULUS, np.int64)], "hashes_cut", fmod=1)
    windows = graph.node("Mod", [hashes, graph.constant("last_row", rows - 1, np.int64)], "window_rows", fmod=1)
    if not word_rows:
        return windows
    words = graph.node("Transpose", [_word_rows(graph, hashes, rows - 1, word_rows)], "word_rows", perm=[0, 2, 1])
    return graph.node("Concat", [windows, words], "rows", axis=1)


def _word_rows(graph: _Graph, hashes: str, first: int, word_rows: int) -> str:
    """Return the name of the rows of words and pairs of words (batch, tokens, 2), at the spaces that end them.

    first: the row of the first of the `word_rows`, minus 1.
    """
    for name, value in (("at_0", 0), ("at_1", 1), ("at_2", 2), ("at_last", -1), ("no_word", -1), ("at_end", 2**62)):
        graph.constant(name, [value], np.int64)
    which = graph.constant("word_window", LENGTHS.index(WORD_WINDOW), np.int64)
    hashed = graph.node("Max", [graph.node("Gather", [hashes, which], "word_windows", axis=1), "at_0"], "window_hashes")
    spaces = graph.node("Equal", ["input_ids", graph.constant("space", SPACE_ID, np.int64)], "spaces")
    places = graph.node("Transpose", [graph.node("NonZero", [spaces], "space_places")], "places")  # (spaces, 2)
    words = _word_hashes(graph, hashed, places)
    columns = [graph.node("Unsqueeze", [each, "at_1"], f"{each}_column") for each in (words, _pairs(graph, words))]
    both = graph.node("Concat", columns, "word_columns", axis=1)  # (spaces - 1, 2)
    own = graph.node("Mod", [both, graph.constant("word_row_count", word_rows, np.int64)], "own_rows")
    own = graph.node("Add", [own, graph.constant("first_word_row", first, np.int64)], "own_rows_moved")
    own = graph.node("Where", [graph.node("Less", [both, "at_0"], "no_words"), "no_word", own], "own_rows_or_none")
    nowhere = graph.node("Unsqueeze", [hashed, "at_2"], "hashes_column")
    nowhere = graph.node("Min", [nowhere, graph.constant("no_words_yet", [-1, -1], np.int64)], "nowhere")
    ends = graph.node("Slice", [places, "at_1", "at_end", "at_0"], "word_ends")
    return graph.node("ScatterND", [nowhere, ends, own], "rows_at_spaces")


def _word_hashes(graph: _Graph, hashed: str, places: str) -> str:
    """Return the name of the hash of the word before each space but the first, (spaces - 1,); -1 for none."""
    squares = graph.node("Mod", [graph.node("Mul", [hashed, hashed], "hashes_squared"), "modulus"], "squares_cut")
    sums = graph.node("CumSum", [squares, "at_1"], "sums_before", exclusive=1)
    at_spaces = graph.node("GatherND", [sums, places], "sums_at_spaces")
    after = graph.node("Slice", [at_spaces, "at_1", "at_end", "at_0"], "sums_after")
    until = graph.node("Slice", [at_spaces, "at_0", "at_last", "at_0"], "sums_until")
    words = graph.node("Sub", [after, until], "words")  # not positive from the end of one text to the start of the next
    is_word = graph.node("Greater", [words, "at_0"], "is_word")
    return graph.node("Where", [is_word, graph.node("Mod", [words, "modulus"], "words_cut"), "no_word"], "word_hashes")


def _pairs(graph: _Graph, words: str) -> str:
    """Return the name of the hash of each word with the one before it; -1 for none."""
    before = graph.node("Slice", [words, "at_0", "at_last", "at_0"], "words_but_last")
    before = graph.node("Concat", ["no_word", before], "words_before", axis=0)
    multiplied = graph.node("Mul", [before, graph.constant("multiplier", MULTIPLIER, np.int64)], "multiplied")
    pairs = graph.node("Mod", [graph.node("Add", [multiplied, words], "pairs_uncut"), "modulus"], "pairs_cut")
    no_pair = graph.node("Less", [graph.node("Min", [before, words], "fewer"), "at_0"], "no_pair")
    return graph.node("Where", [no_pair, "no_word", pairs], "pair_hashes")


def _sums(graph: _Graph, rows: str, table: Table) -> str:
    """Return the name of the unscaled column sums over the n-grams (batch, 1 + outputs)."""
    rolled = graph.constant("table", np.roll(table.values, -1, axis=0), table.values.dtype)
    values = graph.node("Gather", [rolled, rows], "values")  # (batch, lengths, tokens, 1 + outputs)
    # In double precision: exact for int8 (integers up to 127² of any number of windows), nearly exact for float32.
    values = graph.node("Cast", [values], "values_wide", to=TensorProto.DOUBLE)
    if table.values.dtype == np.int8:
        values = graph.node("Mul", [values, graph.node("Abs", [values], "values_size")], "values_squared")
    sums = graph.node("ReduceSum", [values, graph.constant("windows", [1, 2], np.int64)], "sums_wide", keepdims=0)
    return graph.node("Cast", [sums], "sums", to=TensorProto.FLOAT)


def _logits(graph: _Graph, sums: str, scales: np.ndarray, intercept: np.ndarray) -> None:
    """Write the logits: divide the sums by the norm, then apply scales and intercept as one matrix and bias.

    A network with one output gets two logits of opposite sign.
    """
    first = [graph.constant(name, [value], np.int64) for name, value in (("start", 0), ("end", 1), ("axis", 1))]
    squares = graph.node("Slice", [sums, *first], "squares")  # (batch, 1)
    squares = graph.node("Max", [squares, graph.constant("least", 1 / scales[0], np.float32)], "squares_at_least_1")
    norm = graph.node("Sqrt", [squares], "norm")
    scores = graph.node("Div", [sums, norm], "scores")  # (batch, 1 + outputs), the first column is ignored
    signs = np.array([[-0.5, 0.5]]) if len(intercept) == 1 else np.eye(len(intercept))  # (outputs, labels)
    matrix = (scales[1:, None].astype(np.float64) / np.sqrt(np.float64(scales[0]))) * signs
    matrix = np.concatenate([np.zeros_like(matrix[:1]), matrix])
    bias = graph.constant("intercept", intercept @ signs, np.float32)
    graph.node("Gemm", [scores, graph.constant("to_labels", matrix, np.float32), bias], "logits")


def _unfolding() -> tuple[np.ndarray, np.ndarray]:
    """Return weights (5 characters + 4 counts, 4, 5) and bias of a convolution that is exact for ids below 2^24.

    For a character c, min(c, 1) is 0 only for PAD, and 2 min(c, 2) - min(c, 1) - min(c, 3) is 1 only for SPACE.
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
    """Return the matrix, int64 (4 lengths, 5 characters + 4 counts), that computes window hashes before the modulo."""
    powers = np.zeros((len(LENGTHS), LONGEST + len(LENGTHS)), dtype=np.int64)
    for row, length in enumerate(LENGTHS):
        powers[row, :length] = [pow(MULTIPLIER, length - 1 - place, MODULUS) for place in range(length)]
        powers[row, LONGEST + row] = NOT_AN_NGRAM
    return powers

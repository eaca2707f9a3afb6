"""model.bin: an n-gram student in one file for programs without a runtime: table, labels, decision rule, normalization.

All numbers are little-endian. The format, in order:

    magic        8 bytes, MAGIC, or WORDS_MAGIC for a table that has rows for words
    counts       uint32 each, the names in COUNTS; with WORDS_MAGIC then the number of rows for words, the last ones
    reals        float64: scales (1 + outputs), intercept (outputs), threshold, offsets (labels)
    starts       uint32 (runs): first code point of each run, plus INCREASING if its symbols increase by one
    symbols      uint16 (runs): symbol of that code point
    ids          uint16 (symbols): token id of each symbol
    first        uint16 (composites)
    second       uint16 (composites)
    order        uint16 (composites): composites sorted by second, then first symbol
    parts        uint16 (expansions, 3)
    classes      uint8 (symbols - marks)
    labels       uint8 (label_bytes): each in UTF-8, ended by a zero byte
    table        int8 (rows, 1 + outputs): a value is code × |code| × the scale of its column

See `exporters.ngram.normalization` for symbols and `toolkit.modeling.ngram` for the model.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporters.loaders.model_bin.arrays import HEAD_FILE
from exporters.loaders.model_bin.model import MAGIC, WORDS_MAGIC
from exporters.loaders.onnx_runtime.graph_file import GRAPH_FILE
from exporters.ngram.normalization import Symbols, symbols_of
from toolkit.modeling.ngram import NgramNetwork
from toolkit.utils.errors import CannotExport

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from toolkit.evaluation.decision_rule import DecisionRule

MODEL_FILE = "model.bin"
COUNTS = (
    "rows", "outputs", "labels", "rule", "runs", "symbols", "composites_start", "composites", "expansions", "marks",
    "joining", "double_symbol", "double_first", "double_second", "label_bytes",
)  # fmt: skip
HIGHEST, THRESHOLD, OFFSETS = 0, 1, 2
"""Values of `rule`: the highest probability, a threshold, or offsets on log-probabilities."""
INCREASING = 1 << 31
MAX_LABELS = 255


@dataclass(frozen=True)
class Table:
    """The table of a network as stored in a file."""

    values: np.ndarray
    """(rows, 1 + outputs): squared idf, then weights; float32 values or int8 codes."""
    scales: np.ndarray
    """float32 (1 + outputs,): the factor for the sum of each column."""


def quantize_table(network: NgramNetwork) -> Table:
    """Return the table with codes from -127 to 127: a value is code × |code| × the scale of its column.

    Most weights are small and few are large: steps that grow with the value change logits less than equal steps over
    the range (`benchmarks.studies.ngram_hyperparameters` measures both).
    """
    values = network.table.detach().numpy().astype(np.float64)
    reach = np.abs(values).max(axis=0)
    reach[reach == 0] = 1.0
    codes = np.sign(values) * np.rint(127 * np.sqrt(np.abs(values) / reach))
    return Table(codes.astype(np.int8), (reach / 127**2).astype(np.float32))


def write_model(
    network: NgramNetwork, tokenizer: "Tokenizer", labels: tuple[str, ...], rule: "DecisionRule", file: Path
) -> None:
    """Write model.bin.

    Raises: CannotExport for more than MAX_LABELS labels, labels with a zero character, or a tokenizer that
        `symbols_of` refuses.
    """
    file.write_bytes(_bytes_of(network, tokenizer, labels, rule))


def write_head(
    network: NgramNetwork, tokenizer: "Tokenizer", labels: tuple[str, ...], rule: "DecisionRule", folder: Path
) -> None:
    """Write the file from which `exporters.loaders.ngram` makes model.bin with the table in the graph of `folder`.

    Raises: CannotExport as `write_model`.
    """
    whole, graph = _bytes_of(network, tokenizer, labels, rule), (folder / GRAPH_FILE).read_bytes()
    size = network.config.rows * (1 + network.config.outputs)
    table = whole[len(whole) - size + 1 + network.config.outputs :]  # without row 0, which the graph has at the end
    place = graph.find(table)
    assert place > 0
    (folder / HEAD_FILE).write_bytes(struct.pack("<Q", place) + whole[: len(whole) - size])


def _bytes_of(network: NgramNetwork, tokenizer: "Tokenizer", labels: tuple[str, ...], rule: "DecisionRule") -> bytes:
    if len(labels) > MAX_LABELS or any("\0" in label for label in labels):
        raise CannotExport(f"it needs at most {MAX_LABELS} labels, without zero characters")
    intercept = network.intercept.detach().numpy().astype(np.float64)
    words = network.config.word_rows
    return model_bytes(quantize_table(network), intercept, symbols_of(tokenizer), labels, rule, words)


def size_without_table(network: NgramNetwork, tokenizer: "Tokenizer", labels: tuple[str, ...]) -> int:
    """Return the bytes of model.bin apart from its table. Raises: CannotExport as `write_model`."""
    from toolkit.evaluation.decision_rule import DecisionRule

    outputs = network.config.outputs
    empty = Table(np.zeros((0, 1 + outputs), dtype=np.int8), np.zeros(1 + outputs))
    words = network.config.word_rows
    return len(model_bytes(empty, np.zeros(outputs), symbols_of(tokenizer), labels, DecisionRule(), words))


def model_bytes(
    table: Table,
    intercept: np.ndarray,
    symbols: Symbols,
    labels: tuple[str, ...],
    rule: "DecisionRule",
    word_rows: int = 0,
) -> bytes:
    """Return the content of model.bin."""
    names = b"".join(label.encode() + b"\0" for label in labels)
    threshold, offsets = rule.threshold, rule.offsets or (0.0,) * len(labels)
    kind = OFFSETS if rule.offsets is not None else HIGHEST
    if len(labels) == 2 and threshold is not None:
        kind = THRESHOLD
    starts, values = _runs(symbols.of)
    counts = {
        "rows": len(table.values),
        "outputs": len(intercept),
        "labels": len(labels),
        "rule": kind,
        "runs": len(starts),
        "symbols": len(symbols.ids),
        "composites_start": symbols.composites,
        "composites": len(symbols.first),
        "expansions": len(symbols.parts),
        "marks": symbols.marks,
        "joining": symbols.joining,
        **dict(zip(("double_symbol", "double_first", "double_second"), symbols.double, strict=True)),
        "label_bytes": len(names),
    }
    sections = [
        np.array([*table.scales, *intercept, threshold if threshold is not None else 0.0, *offsets], dtype="<f8"),
        starts.astype("<u4"),
        *(each.astype("<u2") for each in (values, symbols.ids, symbols.first, symbols.second)),
        np.lexsort((symbols.first, symbols.second)).astype("<u2"),
        symbols.parts.astype("<u2"),
        symbols.classes,
    ]
    head = (WORDS_MAGIC if word_rows else MAGIC) + struct.pack(f"<{len(COUNTS)}I", *(counts[name] for name in COUNTS))
    if word_rows:
        head += struct.pack("<I", word_rows)
    return b"".join([head, *(each.tobytes() for each in sections), names, table.values.tobytes()])


def _runs(of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and first symbols of the fewest runs of code points with equal or increasing symbols.

    of: uint16 (CODE_POINTS,).
    """
    steps = np.diff(of.astype(np.int64), append=-1)
    breaks = [np.flatnonzero(steps != step) for step in (0, 1)]
    starts, place = [], 0
    while place < len(of):
        equal, increasing = (int(each[np.searchsorted(each, place)]) for each in breaks)
        starts.append(place + (INCREASING if increasing > equal else 0))
        place = max(equal, increasing) + 1
    found = np.array(starts, dtype=np.uint32)
    return found, of[found & np.uint32(INCREASING - 1)]

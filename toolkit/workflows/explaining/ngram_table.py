"""The table of an n-gram package, from whichever file has it, and what each n-gram of a text adds to the logits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from exporters.loaders.compose import NGRAM, model_type
from exporters.loaders.model_bin.arrays import HEAD_FILE, model_bin
from exporters.loaders.model_bin.model import MAGIC, WORDS_MAGIC, Model
from exporters.loaders.onnx_runtime.graph_file import graph_file
from toolkit.modeling.ngram import LONGEST, MODULUS, MULTIPLIER, SHORTEST, SPACE, SPACE_ID, WORD_WINDOW

MODEL_FILE, TOKENIZER_FILE = "model.bin", "tokenizer.json"


@dataclass(frozen=True)
class Token:
    """A normalized character and where it comes from in the text."""

    id: int
    char: str
    start: int
    end: int
    """Characters of the text as given, the end excluded."""


@dataclass(frozen=True)
class Window:
    """One n-gram of a text: the tokens from `first` to `last`, which is included."""

    first: int
    last: int
    row: int


@dataclass(frozen=True, eq=False)
class NgramTable:
    """logits = Σ values[1:] @ to_labels / √max(Σ values[0], least) + bias, over the rows of the n-grams of a text."""

    values: np.ndarray
    """float64 (rows, 1 + outputs)."""
    to_labels: np.ndarray
    """float64 (outputs, labels)."""
    least: float
    bias: np.ndarray
    """float64 (labels,)."""
    tokenizer: Tokenizer
    word_rows: int
    """How many of the rows, the last ones, are for words and pairs of words."""

    def tokens(self, text: str) -> list[Token]:
        """Return the tokens of a text, with a space at both ends."""
        found = self.tokenizer.encode(text)
        return [
            Token(i, " " if char == SPACE else char, start, end)
            for i, char, (start, end) in zip(found.ids, found.tokens, found.offsets, strict=True)
        ]

    def windows(self, tokens: Sequence[Token]) -> Iterator[Window]:
        """Yield the n-grams of a text: of characters, which have no space inside, then words and pairs of words."""
        rows = len(self.values) - self.word_rows
        for first in range(len(tokens)):
            hashed = tokens[first].id
            for last in range(first + 1, min(first + LONGEST, len(tokens))):
                hashed = (hashed * MULTIPLIER + tokens[last].id) % MODULUS
                if last - first + 1 >= SHORTEST:
                    yield Window(first, last, hashed % (rows - 1) + 1)
                if tokens[last].id == SPACE_ID:
                    break
        if self.word_rows:
            yield from self._words(tokens)

    def _words(self, tokens: Sequence[Token]) -> Iterator[Window]:
        spaces = [place for place, token in enumerate(tokens) if token.id == SPACE_ID]
        first_row, before, start_before = len(self.values) - self.word_rows, 0, 0
        for start, end in pairwise(spaces):
            word = 0
            for first in range(start, end + 2 - WORD_WINDOW):
                hashed = 0
                for token in tokens[first : first + WORD_WINDOW]:
                    hashed = (hashed * MULTIPLIER + token.id) % MODULUS
                word += hashed**2
            if word:
                yield Window(start, end, word % MODULUS % self.word_rows + first_row)
            if word and before:
                yield Window(start_before, end, (before * MULTIPLIER + word) % MODULUS % self.word_rows + first_row)
            before, start_before = word, start

    def contributions(self, windows: Sequence[Window]) -> np.ndarray:
        """Return what each n-gram of one text adds to the logits, float64 (windows, labels)."""
        found = self.values[[window.row for window in windows]]
        return found[:, 1:] @ self.to_labels / np.sqrt(max(found[:, 0].sum(), self.least))

    def weights(self, ngrams: Sequence[tuple[int, ...]]) -> np.ndarray:
        """Return the weight of n-grams for each label, in a text without others, float64 (n-grams, labels).

        ngrams: the table rows of each.
        """
        found = np.array([self.values[list(rows)].sum(axis=0) for rows in ngrams]).reshape(-1, self.values.shape[1])
        return found[:, 1:] @ self.to_labels / np.sqrt(np.maximum(found[:, :1], self.least))


def ngram_table(folder: Path) -> NgramTable | None:
    """Return the table of a package that has been loaded, so its files are checked; None if it is no n-gram package."""
    if model_type(folder) != NGRAM:
        return None
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.no_padding()
    file = folder / MODEL_FILE
    if file.is_file() and file.read_bytes()[: len(MAGIC)] in (MAGIC, WORDS_MAGIC):
        return _of_model(Model(file.read_bytes()), tokenizer)
    if (folder / HEAD_FILE).is_file():
        return _of_model(Model(model_bin(folder)), tokenizer)
    return _of_graph(folder / graph_file(folder), tokenizer)


def _of_model(model: Model, tokenizer: Tokenizer) -> NgramTable:
    codes = np.frombuffer(model.table, dtype=np.int8).reshape(model.rows, len(model.scales))
    scales, bias = np.array(model.scales), np.array(model.intercept)
    signs = np.array([[-0.5, 0.5]]) if len(bias) == 1 else np.eye(len(bias))  # (outputs, labels)
    to_labels = scales[1:, None] * signs / np.sqrt(scales[0])
    return NgramTable(_decoded(codes), to_labels, 1 / scales[0], bias @ signs, tokenizer, model.word_rows)


def _of_graph(file: Path, tokenizer: Tokenizer) -> NgramTable:
    """Return the table in an ONNX graph that `exporters.ngram.graph` wrote."""
    import onnx
    from onnx import numpy_helper

    constants = {each.name: numpy_helper.to_array(each) for each in onnx.load(str(file)).graph.initializer}
    table = np.roll(constants["table"], 1, axis=0)  # its row of zeros is the last
    values = _decoded(table) if table.dtype == np.int8 else table.astype(np.float64)
    least = float(constants["least"].ravel()[0])
    to_labels = constants["to_labels"][1:].astype(np.float64)
    words = int(constants["word_row_count"]) if "word_row_count" in constants else 0
    return NgramTable(values, to_labels, least, constants["intercept"], tokenizer, words)


def _decoded(codes: np.ndarray) -> np.ndarray:
    """Return the values of int8 codes, without the scales of the columns."""
    wide = codes.astype(np.float64)
    return wide * np.abs(wide)


def counted_ngrams(table: NgramTable, texts: Sequence[str]) -> tuple[Counter[str], dict[str, tuple[int, ...]]]:
    """Return in how many of `texts` each n-gram is, and its table rows: a short word is also a window of characters."""
    counts: Counter[str] = Counter()
    rows: dict[str, tuple[int, ...]] = {}
    for text in texts:
        tokens = table.tokens(text)
        found: dict[str, set[int]] = {}
        for window in table.windows(tokens):
            name = "".join(each.char for each in tokens[window.first : window.last + 1])
            found.setdefault(name, set()).add(window.row)
        counts.update(found.keys())
        rows |= {name: tuple(own) for name, own in found.items()}
    return counts, rows

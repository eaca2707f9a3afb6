"""The n-gram model in model.bin, for the standard library alone: normalization, hashing, sums and decision rule."""

from __future__ import annotations

import json
import math
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

from exporters.loaders.base.texts import checked_texts

MAGIC, WORDS_MAGIC = b"hbtngrm1", b"hbtngrm2"
COUNTS, WORDS_COUNTS = struct.Struct("<15I"), struct.Struct("<16I")
"""The second of each is of a table that has rows for words, too."""
UNKNOWN, WHITE, INVISIBLE, NONE = 0, 1, 0xFFFF, 0xFFFF
SPACE_ID = 2
INCREASING = 1 << 31
MULTIPLIER, MODULUS = 1_000_003, 2**31 - 1
THRESHOLD, OFFSETS = 1, 2
SQUARES = [code * abs(code) for code in (*range(128), *range(-128, 0))]
"""Byte of the table -> value without its scale."""


class Symbols(dict[str, int]):
    """Character -> symbol, a small integer; characters that the normalizer treats alike share one."""

    def __init__(self, starts: Sequence[int], symbols: Sequence[int]) -> None:
        super().__init__()
        self.starts = [start & (INCREASING - 1) for start in starts]
        self.runs = [(symbol, start >= INCREASING) for start, symbol in zip(starts, symbols)]

    def __missing__(self, char: str) -> int:
        place = bisect_right(self.starts, ord(char)) - 1
        symbol, increasing = self.runs[place]
        found = symbol + (ord(char) - self.starts[place] if increasing else 0)
        self[char] = found
        return found


class Model:
    """A text classifier in the bytes of model.bin. Every text is normalized, and read to its end.

    score: text -> the logit of each label, of compiled code; None for Python's.
    """

    def __init__(self, data: bytes, score: Callable[[str], list[float]] | None = None) -> None:
        magic = data[: len(MAGIC)]
        if magic not in (MAGIC, WORDS_MAGIC) or len(data) < len(MAGIC) + WORDS_COUNTS.size:
            raise ValueError("model.bin is of another format")
        counts = WORDS_COUNTS if magic == WORDS_MAGIC else COUNTS
        (
            self.rows, outputs, labels, rule, runs, symbols, self.composites, composites, expansions, self.marks, _,
            self.double, first_id, second_id, label_bytes, *word_rows,
        ) = counts.unpack_from(data, len(MAGIC))  # fmt: skip
        self.double_ids, self.word_rows = [first_id, second_id], word_rows[0] if word_rows else 0
        place = len(MAGIC) + counts.size

        def take(kind: str, count: int) -> array[Any]:
            nonlocal place
            found = array(kind)
            found.frombytes(data[place : place + count * found.itemsize])
            if len(found) != count:
                raise ValueError("model.bin ends too early")
            if sys.byteorder == "big":
                found.byteswap()
            place += count * found.itemsize
            return found

        reals = [*take("d", 1 + outputs + outputs + 1 + labels)]
        self.scales, reals = reals[: 1 + outputs], reals[1 + outputs :]
        self.intercept, self.threshold_value, self.offset_values = reals[:outputs], reals[outputs], reals[outputs + 1 :]
        starts, firsts = take("I", runs), take("H", runs)
        self.ids, first, second = take("H", symbols), take("H", composites), take("H", composites)
        take("H", composites)  # their order, for binary search
        self.expansions = self.composites + composites
        self.halves = list(zip(first, second))
        self.pairs = {pair: self.composites + i for i, pair in enumerate(self.halves)}
        parts = take("H", 3 * expansions)
        self.parts = [[part for part in parts[i : i + 3] if part != NONE] for i in range(0, len(parts), 3)]
        self.classes = take("B", symbols - self.marks)
        self.symbols = Symbols(starts, firsts)
        names = take("B", label_bytes).tobytes().decode()
        self.labels: tuple[str, ...] = tuple(names.split("\0")[:-1])
        self.threshold: float | None = self.threshold_value if rule == THRESHOLD else None
        self.offsets: tuple[float, ...] | None = tuple(self.offset_values) if rule == OFFSETS else None
        self.table = data[place:]
        if (
            len(self.table) != self.rows * (1 + outputs) or self.word_rows > self.rows - 2
            or len(self.labels) != labels or labels != max(2, outputs)
        ):  # fmt: skip
            raise ValueError("model.bin has another number of rows or labels than it states")
        self.compiled = score is not None
        self.score = score or (lambda text: self.logits(self.token_ids(text)))

    @cached_property
    def columns(self) -> list[bytes]:
        """The columns of the table."""
        width = len(self.scales)
        return [self.table[i::width] for i in range(width)]

    def predict(self, texts: Sequence[str], batch_size: int = 1) -> list[tuple[str, float]]:
        """Return the label of each text and its probability.

        With two labels, the second one is predicted if its probability is at least the threshold. With more, the label
        with the highest sum of log-probability and offset is predicted.
        """
        rows = map(self.probabilities, self.rows_of_logits(texts, batch_size))
        return [(self.labels[i], row[i]) for row in rows for i in [self.chosen(row)]]

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> list[list[float]]:
        """Return the probability of each label, for each text, rounded to single precision.

        Scores do not depend on the batch size.
        Raises: ValueError for one text instead of a list, a text that is not a str, a batch size below 1, or scores
            that are not finite.
        """
        return [self.probabilities(logits) for logits in self.rows_of_logits(texts, batch_size)]

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> list[list[float]]:
        """Return the logit of each label, for each text. See `predict_proba` for errors."""
        return self.rows_of_logits(texts, batch_size)

    def rows_of_logits(self, texts: Sequence[str], batch_size: int) -> list[list[float]]:
        """Return the logits of each text. See `predict_proba` for errors."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        found = self.scored(checked_texts(texts), batch_size)
        if not all(math.isfinite(logit) for row in found for logit in row):
            raise ValueError("the model returned scores that are not finite: it is damaged")
        return found

    def scored(self, texts: list[str], batch_size: int) -> list[list[float]]:
        """Return the logits of each text, computed one by one."""
        return [self.score(text) for text in texts]

    def encode(self, texts: Sequence[str]) -> list[array[int]]:
        """Return the token ids of each text."""
        return [array("H", self.token_ids(text)) for text in checked_texts(texts)]

    def chosen(self, probabilities: list[float]) -> int:
        """Return the index of the label that the decision rule predicts."""
        if self.threshold is not None:
            return int(probabilities[1] >= single(self.threshold))
        scores = probabilities
        if self.offsets is not None:
            scores = [math.log(max(p, 1e-12)) + o for p, o in zip(probabilities, self.offsets)]
        return scores.index(max(scores))

    def probabilities(self, logits: list[float]) -> list[float]:
        """Return the softmax of `logits`, rounded to single precision."""
        largest = max(logits)
        exponentials = [math.exp(logit - largest) for logit in logits]
        total = sum(exponentials)
        return [single(value / total) for value in exponentials]

    def logits(self, ids: Sequence[int]) -> list[float]:
        """Return the logits of token ids: Σ weights / √(Σ squared idf) + intercept."""
        last, found = self.rows - self.word_rows - 1, [0, 0]  # row 0 is zero; itemgetter returns a tuple for two
        second, third, fourth = 0, 0, 0  # hashes of the last two, three and four characters
        before, length = ids[0], 1
        for char in ids[1:]:
            if length >= 4:
                found.append((fourth * MULTIPLIER + char) % MODULUS % last + 1)
            if length >= 3:
                fourth = (third * MULTIPLIER + char) % MODULUS
                found.append(fourth % last + 1)
            if length >= 2:
                third = (second * MULTIPLIER + char) % MODULUS
                found.append(third % last + 1)
            second = (before * MULTIPLIER + char) % MODULUS
            found.append(second % last + 1)
            before, length = char, 1 if char == SPACE_ID else length + 1  # an n-gram has no space inside
        if self.word_rows:
            found += self.rows_of_words(ids)
        lookup = itemgetter(*found)
        sums = [sum(itemgetter(*lookup(column))(SQUARES)) for column in self.columns]
        norm = math.sqrt(max(sums[0] * self.scales[0], 1.0))
        scores = [total * scale / norm + bias for total, scale, bias in zip(sums[1:], self.scales[1:], self.intercept)]
        return [-scores[0] / 2, scores[0] / 2] if len(scores) == 1 else scores

    def rows_of_words(self, ids: Sequence[int]) -> list[int]:
        """Return the rows of the words and of the pairs of words: a word's hash is Σ h² of its 3-grams."""
        first, found = self.rows - self.word_rows, []
        previous, word, before_last, last = 0, 0, 0, ids[0]  # the last two ids, the first of them 0 before a word
        for char in ids[1:]:
            if before_last:
                hashed = (before_last * MULTIPLIER + last) % MODULUS
                word += ((hashed * MULTIPLIER + char) % MODULUS) ** 2
            before_last, last = last, char
            if char == SPACE_ID:
                if word:
                    found.append(word % MODULUS % self.word_rows + first)
                    if previous:
                        found.append((previous * MULTIPLIER + word) % MODULUS % self.word_rows + first)
                previous, word, before_last = word, 0, 0
        return found

    def token_ids(self, text: str) -> list[int]:
        """Return the token ids of a text: its normalized characters, with a space at both ends."""
        symbols = [*map(self.symbols.__getitem__, text)]
        if INVISIBLE in symbols:
            text = "".join(char for char, symbol in zip(text, symbols) if symbol != INVISIBLE)
            symbols = [symbol for symbol in symbols if symbol != INVISIBLE]
        if max(symbols, default=0) >= self.expansions:
            symbols = self.composed([*map(ord, text)], symbols)
        ids, pending = [SPACE_ID], False
        for symbol in symbols:
            if symbol == WHITE:
                pending = len(ids) > 1
                continue
            if pending:
                ids.append(SPACE_ID)
                pending = False
            if symbol == self.double:
                ids += self.double_ids
            else:
                ids.append(self.ids[symbol])
        return [*ids, SPACE_ID]

    def composed(self, codes: list[int], symbols: list[int]) -> list[int]:
        """Return the symbols in Unicode normalization form NFC. codes: the code point of each symbol."""
        pieces: list[tuple[int, int, int]] = []  # class, symbol, code point or 0
        ordered = 0  # the pieces after this place are marks whose order is open
        for code, symbol in zip(codes, symbols):
            for piece in self.decomposed(symbol):
                rank = self.classes[piece - self.marks] if piece >= self.marks else 0
                if rank == 0:
                    pieces[ordered:] = sorted(pieces[ordered:], key=lambda mark: mark[0])
                    ordered = len(pieces) + 1
                pieces.append((rank, piece, code if piece == symbol else 0))
        pieces[ordered:] = sorted(pieces[ordered:], key=lambda mark: mark[0])
        found: list[int] = []
        starter, starter_code, last = -1, 0, 0  # last: class of the last mark that was kept after the starter
        for rank, symbol, code in pieces:
            if starter >= 0 and (last == 0 if rank == 0 else last < rank):
                syllable = hangul(starter_code, code)
                joined = self.symbols[chr(syllable)] if syllable else self.pairs.get((found[starter], symbol))
                if joined is not None:
                    found[starter], starter_code = joined, syllable
                    continue
            if rank == 0:
                starter, starter_code = len(found), code
            last = rank
            found.append(symbol)
        return found

    def decomposed(self, symbol: int) -> list[int]:
        """Return the symbols that NFD makes of one, except that starters stay joined with starters."""
        if self.expansions <= symbol < self.marks:
            return [piece for part in self.parts[symbol - self.expansions] for piece in self.decomposed(part)]
        if not self.composites <= symbol < self.expansions:
            return [symbol]
        first, second = self.halves[symbol - self.composites]
        is_mark = self.classes[second - self.marks] > 0
        return [*self.decomposed(first), second] if is_mark else [symbol]


def hangul(first: int, second: int) -> int:
    """Return the Hangul syllable that two code points form; 0 if they form none."""
    if 0x1100 <= first <= 0x1112 and 0x1161 <= second <= 0x1175:
        return 0xAC00 + ((first - 0x1100) * 21 + second - 0x1161) * 28
    if 0xAC00 <= first <= 0xD7A3 and (first - 0xAC00) % 28 == 0 and 0x11A8 <= second <= 0x11C2:
        return first + second - 0x11A7
    return 0


def single(value: float) -> float:
    """Return `value` rounded to single precision."""
    return struct.unpack("f", struct.pack("f", value))[0]


def refuse_other_rule(model: Model, folder: Path) -> None:
    """Raise ValueError if config.json states other labels or another decision rule than model.bin."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    labels = tuple(config["id2label"][str(i)] for i in range(len(config["id2label"])))
    offsets = None if config.get("offsets") is None else tuple(config["offsets"])
    if (model.labels, model.threshold, model.offsets) != (labels, config["threshold"], offsets):
        raise ValueError("the model and config.json state different labels or decision rules")

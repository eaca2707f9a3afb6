"""Classify texts with the model in this folder. Needs nothing but Python.

    python how_to_load.py "text" ["another text" …]

or, from Python:

    from how_to_load import load
    model = load()
    model.predict(["text"])           # [("label", probability of that label)]
    model.predict_proba(["text"])     # for each text, the probability of each label

The model is a linear classifier on hashed character n-grams; model.bin holds it. Checks every file against
manifest.json before it loads the model.
"""

import hashlib
import json
import math
import os
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAGIC = b"hbtngrm1"
COUNTS = struct.Struct("<15I")
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
        self.runs = [(symbol, start >= INCREASING) for start, symbol in zip(starts, symbols, strict=True)]

    def __missing__(self, char: str) -> int:
        place = bisect_right(self.starts, ord(char)) - 1
        symbol, increasing = self.runs[place]
        found = symbol + (ord(char) - self.starts[place] if increasing else 0)
        self[char] = found
        return found


class Model:
    """A text classifier in the file model.bin. Every text is normalized, and read to its end."""

    def __init__(self, data: bytes) -> None:
        if data[: len(MAGIC)] != MAGIC or len(data) < len(MAGIC) + COUNTS.size:
            raise ValueError("model.bin is of another format")
        (
            self.rows, outputs, labels, rule, runs, symbols, self.composites, composites, expansions, self.marks, _,
            self.double, *self.double_ids, label_bytes,
        ) = COUNTS.unpack_from(data, len(MAGIC))  # fmt: skip
        place = len(MAGIC) + COUNTS.size

        def take(kind: str, count: int) -> "array[Any]":
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
        self.halves = list(zip(first, second, strict=True))
        self.pairs = {pair: self.composites + i for i, pair in enumerate(self.halves)}
        parts = take("H", 3 * expansions)
        self.parts = [[part for part in parts[i : i + 3] if part != NONE] for i in range(0, len(parts), 3)]
        self.classes = take("B", symbols - self.marks)
        self.symbols = Symbols(starts, firsts)
        names = take("B", label_bytes).tobytes().decode()
        self.labels: tuple[str, ...] = tuple(names.split("\0")[:-1])
        self.threshold: float | None = self.threshold_value if rule == THRESHOLD else None
        self.offsets: tuple[float, ...] | None = tuple(self.offset_values) if rule == OFFSETS else None
        table = data[place:]
        if len(table) != self.rows * (1 + outputs) or len(self.labels) != labels or labels != max(2, outputs):
            raise ValueError("model.bin has another number of rows or labels than it states")
        self.columns = [table[i :: 1 + outputs] for i in range(1 + outputs)]

    def predict(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Return the label of each text and its probability.

        With two labels, the second one is predicted if its probability is at least the threshold. With more, the label
        with the highest sum of log-probability and offset is predicted.
        """
        return [(self.labels[i], row[i]) for row in self.predict_proba(texts) for i in [self.chosen(row)]]

    def predict_proba(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the probability of each label, for each text, rounded to single precision.

        Raises: ValueError for one text instead of a list, or a text that is not a str.
        """
        return [self.probabilities(logits) for logits in self.predict_logits(texts)]

    def predict_logits(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the logit of each label, for each text. See `predict_proba` for errors."""
        return [self.logits(self.token_ids(text)) for text in checked_texts(texts)]

    def chosen(self, probabilities: list[float]) -> int:
        """Return the index of the label that the decision rule predicts."""
        if self.threshold is not None:
            return int(probabilities[1] >= single(self.threshold))
        scores = probabilities
        if self.offsets is not None:
            scores = [math.log(max(p, 1e-12)) + o for p, o in zip(probabilities, self.offsets, strict=True)]
        return scores.index(max(scores))

    def probabilities(self, logits: list[float]) -> list[float]:
        """Return the softmax of `logits`, rounded to single precision."""
        largest = max(logits)
        exponentials = [math.exp(logit - largest) for logit in logits]
        total = sum(exponentials)
        return [single(value / total) for value in exponentials]

    def logits(self, ids: Sequence[int]) -> list[float]:
        """Return the logits of token ids: Σ weights / √(Σ squared idf) + intercept."""
        last, found = self.rows - 1, []
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
        sums = [sum(map(SQUARES.__getitem__, map(column.__getitem__, found))) for column in self.columns]
        norm = math.sqrt(max(sums[0] * self.scales[0], 1.0))
        scores = [
            total * scale / norm + bias
            for total, scale, bias in zip(sums[1:], self.scales[1:], self.intercept, strict=True)
        ]
        return [-scores[0] / 2, scores[0] / 2] if len(scores) == 1 else scores

    def token_ids(self, text: str) -> list[int]:
        """Return the token ids of a text: its normalized characters, with a space at both ends."""
        symbols = [*map(self.symbols.__getitem__, text)]
        if INVISIBLE in symbols:
            text = "".join(char for char, symbol in zip(text, symbols, strict=True) if symbol != INVISIBLE)
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
        for code, symbol in zip(codes, symbols, strict=True):
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


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None, verify: bool = True) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: has no effect; every text is scored on one thread.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    Raises: ValueError if a file is not as shipped or the model does not load.
    """
    root = Path(__file__).parent if folder is None else Path(folder)
    try:
        if verify:
            check_files(root.resolve())
        return Model((root / "model.bin").read_bytes())
    except (OSError, ValueError, LookupError) as error:
        raise ValueError(f"{root}: does not load: {' '.join(str(error).split())}") from error


def check_files(root: Path) -> None:
    """Check that every file in manifest.json, model.bin among them, has the size and SHA-256 that it states.

    Raises: ValueError for the first file that is missing, changed, outside the folder, a link or not a regular file.
    """
    manifest = root / "manifest.json"
    if not manifest.is_file() or manifest.stat().st_size > 2**24:
        raise ValueError("manifest.json is missing or too large; verify=False loads without it")
    try:
        files = json.loads(manifest.read_text("utf-8"))["files"]
        stated = {name: (entry["size_bytes"], entry["sha256"]) for name, entry in files.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("manifest.json is malformed") from None
    if "model.bin" not in stated:
        raise ValueError("model.bin is not in manifest.json")
    for name, (size, digest) in stated.items():
        file = root / name
        if file.resolve() != file or not file.is_relative_to(root) or not file.is_file():
            raise ValueError(f"{name} is missing, or is not a regular file inside the folder")
        if file.stat().st_size != size or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{name} has changed")


def checked_texts(texts: Sequence[str]) -> list[str]:
    """Return a list of the texts, each surrogate without its other half replaced by U+FFFD.

    Raises: ValueError if `texts` is one text, or one of them is not a str.
    """
    if isinstance(texts, str | bytes):
        raise ValueError("expected a list of texts, not one text: write predict([text])")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise ValueError(f"texts[{i}] is not a str but {type(text).__name__}")
        found[i] = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return found


def main() -> None:
    """Print label, probability and text for each command-line argument; an error is one line and exit code 2."""
    try:
        if not sys.argv[1:]:
            raise ValueError('usage: python how_to_load.py "text" ["another text" …]')
        for text, (label, score) in zip(sys.argv[1:], load().predict(sys.argv[1:]), strict=True):
            print(f"{printable(label)}\t{score:.4f}\t{printable(text)}")
    except (ValueError, OSError) as error:
        print(printable(" ".join(str(error).split())), file=sys.stderr)
        sys.exit(2)


def printable(text: str) -> str:
    """Return `text` with characters that could change a terminal as escapes."""
    return "".join(char if char.isprintable() or char in "\t\u200c\u200d" else ascii(char)[1:-1] for char in text)


if __name__ == "__main__":
    main()

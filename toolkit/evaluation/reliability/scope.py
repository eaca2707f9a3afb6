"""Whether a text is like those that a package was trained on: its scripts, characters and character trigrams.

A classifier gives a label to every text, in any language. Here a text is compared with the training texts, without the
model: the shares of its letters in other scripts, of its unknown characters and of its unknown trigrams. A text is out
of scope if one share is above its limit. `scope_file` makes the limits.

This module is sent to the workers of a cluster, where hbt is not installed: of hbt, it imports only
`toolkit.utils.letters`, which is sent as well.
"""

import base64
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.utils.letters import script_name

SCOPE_FILE = "scope.json"
"""Of a package."""
OUT_OF_SCOPE = "out of scope"
COLUMN = "out_of_scope"
"""Of labeled files: the reason, one of REASONS, empty for a text in scope."""
REASONS = ("script", "characters", "n-grams")
FEW = 10
"""Known characters that are added to every text, so that a short word is not out of scope by chance."""
SPACE, DROPPED = 0x20, 0
LETTER, KNOWN, OTHER_SCRIPT = 1, 2, 4
"""Bits of what is known of a character."""
_UNSET = 0xFFFFFFFF
_CODE_POINTS = 0x110000


class Scope:
    """What a package keeps of its training texts, to compare others with: no texts and no n-grams, but a bit for each
    hash of an n-gram."""

    def __init__(self, facts: dict[str, Any]) -> None:
        """facts: the content of SCOPE_FILE. Raises: ValueError if it is not of this form."""
        try:
            self.scripts = frozenset(map(str, facts["scripts"]))
            self.ranges = [(int(first), int(last)) for first, last in facts["characters"]]
            bits = np.frombuffer(base64.b64decode(facts["ngrams"], validate=True), dtype=np.uint8)
            limits = [facts["limits"][reason] for reason in REASONS]
            self.limits = np.array([np.inf if limit is None else float(limit) for limit in limits])
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{SCOPE_FILE} is malformed ({error})") from None
        size = 8 * len(bits)
        if size < 8 or size & (size - 1) or size > 2**24 or np.isnan(self.limits).any():
            raise ValueError(f"{SCOPE_FILE} is malformed (its table or its limits)")
        self.bits = np.unpackbits(bits).astype(bool)
        self.reader: TextReader | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the tables of characters, which each process fills by itself."""
        return self.__dict__ | {"reader": None}

    def shares(self, texts: Sequence[str]) -> np.ndarray:
        """Return the shares of each text that REASONS name, float (texts, 3)."""
        if self.reader is None:
            self.reader = TextReader(self.scripts, self.ranges)
        read = self.reader.read(texts)
        return shares_of(read, (read.kinds & KNOWN) == 0, ~self.bits[hashed(read.trigrams, len(self.bits))])

    def reasons(self, texts: Sequence[str]) -> list[str]:
        """Return why each text is out of scope, the first of REASONS that holds; "" for a text in scope."""
        above = self.shares(texts) > self.limits
        first = above.argmax(axis=1)
        return [REASONS[i] if above[row, i] else "" for row, i in enumerate(first.tolist())]


@dataclass(frozen=True, eq=False)
class Read:
    """The visible characters of texts, one after the other, as arrays (characters,)."""

    texts: int
    text: np.ndarray
    """int: the text that a character is in."""
    kinds: np.ndarray
    """uint8: bits of what is known of it."""
    trigrams: np.ndarray
    """uint32: hash of the character, the one before and the one after it."""
    codes: np.ndarray
    """uint32: code points, in lower case and with all digits alike."""

    def counted(self, chosen: np.ndarray | None) -> np.ndarray:
        """Return how many characters of each text are chosen, int (texts,); None chooses all."""
        return np.bincount(self.text if chosen is None else self.text[chosen], minlength=self.texts)


class TextReader:
    """Reads texts with tables of characters, which it fills as it meets them."""

    def __init__(self, scripts: frozenset[str], ranges: Sequence[tuple[int, int]]) -> None:
        self.scripts, self.ranges = scripts, ranges
        self.folded = np.full(_CODE_POINTS, _UNSET, dtype=np.uint32)
        self.kinds = np.zeros(_CODE_POINTS, dtype=np.uint8)

    def read(self, texts: Sequence[str]) -> Read:
        """Return the visible characters of the texts, in NFC."""
        joined = "\0".join(["", *(text.replace("\0", " ") for text in texts), ""])
        if not joined.isascii():
            joined = unicodedata.normalize("NFC", joined)
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        folded = self.folded[codes]
        if (folded == _UNSET).any():
            for code in set(codes[folded == _UNSET].tolist()):
                self.look_up(code)
            folded = self.folded[codes]
        text = np.cumsum(codes == 0) - 1
        if (folded == DROPPED).any():
            kept = folded != DROPPED
            codes, folded, text = codes[kept], folded[kept], text[kept]
        inner = np.flatnonzero(folded != SPACE)  # never the first or the last
        trigrams = folded[inner - 1] * np.uint32(0x9E3779B1) + folded[inner] * np.uint32(0x85EBCA6B)
        trigrams += folded[inner + 1] * np.uint32(0xC2B2AE35)
        trigrams ^= trigrams >> np.uint32(15)
        trigrams *= np.uint32(0x27D4EB2F)
        return Read(len(texts), text[inner], self.kinds[codes[inner]], trigrams, folded[inner])

    def look_up(self, code: int) -> None:
        """Fill the tables for one character: digits are all alike, and so are letters of both cases."""
        char = chr(code)
        category = unicodedata.category(char)
        if char.isspace() or code == 0:
            self.folded[code] = SPACE
        elif category in ("Cc", "Cf"):  # joiners, direction marks and the like
            self.folded[code] = DROPPED
        else:
            self.folded[code] = ord("0") if category == "Nd" else ord(char.lower()[0])
        folded = int(self.folded[code])
        known = KNOWN if any(first <= folded <= last for first, last in self.ranges) else 0
        script = script_name(char) if char.isalpha() else ""
        other = OTHER_SCRIPT if script and script not in self.scripts else 0
        self.kinds[code] = known | (LETTER if script else 0) | other


def shares_of(read: Read, unknown: np.ndarray, unknown_trigram: np.ndarray) -> np.ndarray:
    """Return the shares that REASONS name, float (texts, 3). unknown, unknown_trigram: bool (characters,)."""
    letters = np.maximum(read.counted((read.kinds & LETTER) > 0), 1)
    visible = read.counted(None) + FEW
    other = read.counted((read.kinds & OTHER_SCRIPT) > 0)
    return np.stack([other / letters, read.counted(unknown) / visible, read.counted(unknown_trigram) / visible], axis=1)


def hashed(trigrams: np.ndarray, size: int) -> np.ndarray:
    """Return the place of each trigram in a table whose size is a power of two."""
    return trigrams & np.uint32(size - 1)

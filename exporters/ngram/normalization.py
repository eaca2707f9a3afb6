"""The normalizer of a character tokenizer as data, for runtimes that have no Unicode library.

Each code point gets a symbol, a small integer: code points that the normalizer and the vocabulary treat alike share
one. Everything is found by running the normalizer itself over all code points and pairs, so that a runtime follows the
Unicode version of `tokenizers`, not its own. Hangul syllables are composed by arithmetic (The Unicode Standard, section
3.12) and need no data.

The symbols come in this order: starters, composites (a pair of symbols that NFC joins), expansions (what NFC writes as
several code points), then what may join the code point before it: those that join by a pair, and other marks.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from tokenizers import Tokenizer, normalizers

from toolkit.data.normalization import normalizer_steps
from toolkit.modeling.ngram import SPACE_ID, UNKNOWN_ID, character_tokenizer
from toolkit.utils.errors import CannotExport

UNKNOWN, WHITE, INVISIBLE = 0, 1, 0xFFFF
"""Symbols with a fixed number: an unknown character, white space, and what the normalizer removes."""
NONE = 0xFFFF
"""Fills `Symbols.parts`."""
CODE_POINTS = 0x110000
MOST_PARTS = 3
_INERT = "\ue000"
"""A private character, which no step of the normalizer changes or joins with others."""
_LOWEST_CLASS, _HIGHEST_CLASS = "\u0334", "\u0345"
"""Marks of the lowest and highest canonical combining class."""
_JAMO_VOWELS, _JAMO_FINALS = range(0x1161, 0x1176), range(0x11A8, 0x11C3)
_SYLLABLES = range(0xAC00, 0xD7A4)


@dataclass(frozen=True, eq=False)
class Symbols:
    """The normalizer and the vocabulary of a character tokenizer; see the top of this file for the order of symbols."""

    of: np.ndarray
    """uint16 (CODE_POINTS,): the symbol of each code point."""
    ids: np.ndarray
    """uint16 (symbols,): the token id."""
    composites: int
    """First symbol of a composite."""
    first: np.ndarray
    """uint16 (composites,): first symbol of the pair."""
    second: np.ndarray
    """uint16 (composites,)."""
    parts: np.ndarray
    """uint16 (expansions, MOST_PARTS): the symbols of an expansion, then NONE: marks after the first one, or two
    starters that join with nothing."""
    marks: int
    """First symbol of those that may join the code point before them."""
    joining: int
    """Number of these that are the second symbol of a pair."""
    classes: np.ndarray
    """uint8 (marks,): rank of the canonical combining class; 0 for a starter."""
    double: tuple[int, int, int]
    """A symbol that becomes two token ids in lower case (U+0130), and these."""

    @property
    def expansions(self) -> int:
        """First symbol of an expansion."""
        return self.composites + len(self.first)


def symbols_of(tokenizer: Tokenizer) -> Symbols:
    """Return the symbols of a tokenizer that `character_tokenizer` made.

    Raises: CannotExport for another normalizer or too many characters, and for a tokenizer that truncates.
    """
    own, known = (json.loads(each.to_str()) for each in (tokenizer, character_tokenizer([""])))
    if own["normalizer"] != known["normalizer"]:
        raise CannotExport("its tokenizer was made by another version of hbt; train the student again")
    if tokenizer.truncation is not None:
        raise CannotExport("its tokenizer truncates, as in older versions of hbt; train the student again")
    vocabulary = {token: i for token, i in tokenizer.get_vocab().items() if len(token) == 1}
    return _Numbering(_unicode(), vocabulary).symbols()


class _Unicode:
    """What the steps of the normalizer do to each code point."""

    def __init__(self) -> None:
        invisible, compose, collapse, strip = normalizer_steps()
        self.compose: Callable[[str], str] = compose.normalize_str
        self.decompose: Callable[[str], str] = normalizers.NFD().normalize_str
        every = [chr(code) for code in range(CODE_POINTS) if not 0xD800 <= code < 0xE000]
        self.invisible = {*_changed(invisible.normalize_str, every)}
        self.white = {" ", *_changed(collapse.normalize_str, every)}
        self.lower = _changed(normalizers.Lowercase().normalize_str, every)
        self.decomposed = _changed(self.decompose, every)
        self.composed = {c: self.compose(c) for c in self.decomposed}
        syllables = {chr(code) for code in _SYLLABLES}
        stable = {c for c in self.decomposed if self.composed[c] == c} - syllables
        self.pairs = {c: self._pair(c) for c in stable}
        spaces = {c for c in every if c.isspace()} - self.invisible
        assert self.white == {c for c in spaces | self.white if not strip.normalize_str(c)}

    def _pair(self, composite: str) -> tuple[str, str]:
        whole = self.decomposed[composite]
        first, last = self.compose(whole[:-1]), whole[-1]
        assert len(first) == 1 and self.compose(first + last) == composite, ascii(composite)
        return first, last

    @cached_property
    def classes(self) -> dict[str, int]:
        """Rank of the canonical combining class of each code point that is not a starter.

        Canonical ordering swaps two marks exactly if the first has the higher class.
        """
        whole = [c for c in map(chr, range(CODE_POINTS)) if not "\ud800" <= c < "\ue000" and c not in self.decomposed]
        moved = {*_changed(self.decompose, whole, after=_LOWEST_CLASS)}
        moved |= {*_changed(self.decompose, whole, before=_HIGHEST_CLASS)}
        lower = {c: len(_changed(self.decompose, sorted(moved), before=c)) for c in moved}
        ranks = sorted({*lower.values()})
        return {c: 1 + ranks.index(below) for c, below in lower.items()}


_unicode = cache(_Unicode)


def _changed(step: Callable[[str], str], texts: Sequence[str], before: str = "", after: str = "") -> dict[str, str]:
    """Return those of `texts` that `step` changes between `before` and `after`, with the result; many run as one."""
    changed: dict[str, str] = {}
    for start in range(0, len(texts), 1024):
        chunk = [f"{before}{text}{after}" for text in texts[start : start + 1024] if text != _INERT]
        joined = _INERT.join(chunk)
        found = step(joined)
        if found != joined:
            pairs = zip(chunk, found.split(_INERT), strict=True)
            end = -len(after) or None
            changed |= {text[len(before) : end]: result for text, result in pairs if result != text}
    return changed


class _Numbering:
    """Number the symbols."""

    def __init__(self, unicode: _Unicode, vocabulary: dict[str, int]) -> None:
        self.unicode, self.vocabulary = unicode, vocabulary
        self.expanded = {c: found for c, found in unicode.composed.items() if len(found) > 1}
        self.alias = {c: found for c, found in unicode.composed.items() if len(found) == 1 and found != c}
        self.seconds = {second for _, second in unicode.pairs.values()}
        jamo = {chr(code) for code in (*_JAMO_VOWELS, *_JAMO_FINALS)}
        self.marks = ({*unicode.classes} | self.seconds | jamo) - {*self.expanded, *self.alias}
        self.firsts = {first for first, _ in unicode.pairs.values()} - {*unicode.pairs}
        assert not self.marks & self.firsts and not self.marks & {*unicode.pairs}
        for first, *rest in self.expanded.values():
            assert {*rest} <= {*unicode.classes} or not {first, *rest} & {*self.marks, *unicode.pairs}
            assert first not in self.seconds or first in unicode.classes

    def token_ids(self, code_point: str) -> tuple[int, ...]:
        """Return the token ids of a character in lower case."""
        if code_point in self.unicode.white or code_point == " ":
            return (SPACE_ID,)
        lower = self.unicode.lower.get(code_point, code_point)
        return tuple(self.vocabulary.get(char, UNKNOWN_ID) for char in lower)

    def symbols(self) -> Symbols:
        """Return the symbols in their order, each code point mapped to one."""
        number: dict[object, int] = {UNKNOWN_ID: UNKNOWN, "white": WHITE}
        ids: list[tuple[int, ...]] = [(UNKNOWN_ID,), (SPACE_ID,)]

        def add(key: object, token_ids: tuple[int, ...]) -> None:
            if key not in number:
                number[key] = len(ids)
                ids.append(token_ids)

        starters = sorted(self.firsts | {*self.vocabulary} | {*self.unicode.lower})
        special = {*self.unicode.pairs, *self.expanded, *self.alias, *self.marks, *self.unicode.white}
        for c in starters:
            if c not in special:
                add(self.key(c), self.token_ids(c))
        composites, joining = len(ids), sorted(self.seconds)
        for c in [*sorted(self.unicode.pairs), *sorted(self.expanded)]:
            add(c, self.token_ids(c))
        marks = len(ids)
        for c in [*joining, *sorted(self.marks - self.seconds)]:
            add(self.key(c), self.token_ids(c))
        if len(ids) >= INVISIBLE:
            raise CannotExport(f"its vocabulary has {len(self.vocabulary):,} characters, more than 60,000")
        symbol = {c: number[self.key(c)] for c in {*starters, *special} - {*self.alias}}
        classes = [0] * (len(ids) - marks)
        for c in self.marks:
            classes[symbol[c] - marks] = self.unicode.classes.get(c, 0)
        pairs = [self.unicode.pairs[c] for c in sorted(self.unicode.pairs)]
        parts = [[symbol.get(part, UNKNOWN) for part in self.expanded[c]] for c in sorted(self.expanded)]
        of = np.zeros(CODE_POINTS, dtype=np.uint16)
        for c, value in symbol.items():
            of[ord(c)] = value
        for c, other in self.alias.items():
            of[ord(c)] = of[ord(other)]
        of[[ord(c) for c in self.unicode.invisible]] = INVISIBLE
        (double,) = ((i, *both) for i, both in enumerate(ids) if len(both) == 2)
        assert all(len(both) <= 2 for both in ids)
        return Symbols(
            of=of,
            ids=np.array([each[0] for each in ids], dtype=np.uint16),
            composites=composites,
            first=np.array([symbol[first] for first, _ in pairs], dtype=np.uint16),
            second=np.array([symbol[second] for _, second in pairs], dtype=np.uint16),
            parts=np.array([each + [NONE] * (MOST_PARTS - len(each)) for each in parts], dtype=np.uint16),
            marks=marks,
            joining=len(joining),
            classes=np.array(classes, dtype=np.uint8),
            double=double,
        )

    def key(self, c: str) -> object:
        """Return what code points with the same symbol have in common."""
        if c in self.unicode.white:
            return "white"
        if c in self.unicode.pairs or c in self.expanded or c in self.firsts or c in self.seconds:
            return c
        ids = self.token_ids(c)
        if c in self.marks:
            return "mark", self.unicode.classes.get(c, 0), ids
        return ids[0] if len(ids) == 1 else c

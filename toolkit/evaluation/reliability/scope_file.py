"""Make the scope of a package: what counts as known, and the limits from held-out rows.

Known is what at least 1 in 1,000 of the training texts has, and two texts at least, so that a rare text in another
language does not make the language known. The limits are chosen so that at most RATE of texts like these are flagged:
each training text is compared with the other folds only, and validation rows with all of them. No test row is used.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.reliability.scope import (
    LETTER,
    REASONS,
    SCOPE_FILE,
    Read,
    Scope,
    TextReader,
    hashed,
    shares_of,
)
from toolkit.utils.files import write_text
from toolkit.utils.letters import script_name

RATE = 0.01
"""Wanted rate of false flags."""
KNOWN_SHARE, KNOWN_TEXTS = 1e-3, 2
"""Share and number of the training texts that must have what is known."""
MOST_ROWS = 20_000
"""Training and validation rows that are read, drawn at random."""
BITS = 2**15
"""Size of the table of trigrams: 4 KB."""
FOLDS = 8
LEAST = (0.5, 0.2, 0.1)
"""Lowest limits of the three shares: a text is mostly in its script, and one new emoji or word says nothing."""


def scope_of(corpus: Corpus, rate: float = RATE) -> dict[str, Any]:
    """Return the content of SCOPE_FILE for the training rows of a corpus."""
    random = np.random.default_rng(corpus.settings.seed)
    train, held_out = (np.sort(random.permutation(corpus.rows(split))[:MOST_ROWS]) for split in ("train", "validation"))
    texts = corpus.take(train)
    read = TextReader(frozenset(), []).read(texts)
    fold = np.array([crc32(corpus.keys[row].encode("utf-8", "surrogatepass")) % FOLDS for row in train])  # (rows,)
    least = known_from(len(texts))
    with_char = _texts_with(read, read.codes, fold)
    with_trigram = _texts_with(read, hashed(read.trigrams, BITS), fold)
    known = _scripts(read, len(texts))
    bits = np.zeros(BITS, dtype=bool)
    bits[: len(with_trigram)] = with_trigram.sum(axis=1) >= least
    found: dict[str, Any] = {
        "scripts": sorted(known),
        "characters": _ranges(np.flatnonzero(with_char.sum(axis=1) >= least)),
        "ngrams": base64.b64encode(np.packbits(bits).tobytes()).decode(),
    }
    scope = Scope(found | {"limits": dict.fromkeys(REASONS)})
    inside = _shares_in_other_folds(read, fold, with_char, with_trigram, known)
    shares = np.concatenate([inside, scope.shares(corpus.take(held_out))])
    return found | {"limits": limits_at(shares, rate), "rate": rate, "rows": len(shares)}


def known_from(texts: int) -> int:
    """Return in how many of the training texts something must be to count as known."""
    return max(KNOWN_TEXTS, int(np.ceil(KNOWN_SHARE * texts)))


def limits_at(shares: np.ndarray, rate: float) -> dict[str, float | None]:
    """Return the limit of each share, so that a text like those of `shares` (texts, 3) is flagged with `rate` at most.

    The k-th largest of n values is exceeded by one more with probability k / (n + 1) (split conformal prediction,
    Vovk et al. 2005). Scripts and characters may take a third of the flags each, trigrams take what these leave.
    None: too few texts to flag any.
    """
    left = int(rate * (len(shares) + 1))
    flagged = np.zeros(len(shares), dtype=bool)
    limits: dict[str, float | None] = {}
    for i, reason in enumerate(REASONS):
        allowed = left // 3 if i < 2 else left
        values = np.sort(shares[~flagged, i])[::-1]
        limit = float(values[allowed - 1]) if 0 < allowed <= len(values) else None
        limits[reason] = None if limit is None else max(limit, LEAST[i])
        if limit is not None:
            above = ~flagged & (shares[:, i] > max(limit, LEAST[i]))
            flagged |= above
            left -= int(above.sum())
    return limits


def scope_facts(corpus: Corpus, scope: Scope, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the figures for manifest and card: what is known, the limits, and the false flags on the test rows."""
    test = corpus.rows("test")
    reasons = scope.reasons(corpus.take(test))
    return {
        "rate": facts["rate"],
        "rows": facts["rows"],
        "scripts": facts["scripts"],
        "characters": sum(last - first + 1 for first, last in facts["characters"]),
        "ngram_hashes": int(scope.bits.sum()),
        "limits": facts["limits"],
        "test": {
            "rows": len(test),
            "flagged": sum(map(bool, reasons)),
            "reasons": {reason: reasons.count(reason) for reason in REASONS},
        },
    }


def write_scope(facts: dict[str, Any], folder: Path) -> None:
    """Write SCOPE_FILE into a package folder."""
    write_text(folder / SCOPE_FILE, json.dumps(facts, ensure_ascii=False) + "\n")


def _texts_with(read: Read, what: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return in how many texts of each fold each value of `what` (characters,) is, int (largest value + 1, FOLDS)."""
    pairs = np.sort(read.text.astype(np.int64) << 32 | what)
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])] if len(pairs) else pairs
    values = pairs & 0xFFFFFFFF
    cells = values * FOLDS + fold[pairs >> 32]
    return np.bincount(cells, minlength=FOLDS * (values.max(initial=-1) + 1)).reshape(-1, FOLDS)


def _scripts(read: Read, texts: int) -> frozenset[str]:
    """Return the scripts in which enough texts are mostly written."""
    letters = (read.kinds & LETTER) > 0
    codes = np.flatnonzero(np.bincount(read.codes[letters], minlength=1))
    names = [script_name(chr(code)) for code in codes.tolist()]
    scripts = sorted(set(names))
    if not scripts:
        return frozenset()
    script_of = np.zeros(codes[-1] + 1, dtype=np.int64)
    script_of[codes] = [scripts.index(name) for name in names]
    script = script_of[read.codes[letters]]
    counts = np.bincount(read.text[letters] * len(scripts) + script, minlength=texts * len(scripts))
    counts = counts.reshape(texts, len(scripts))
    main = np.bincount(counts.argmax(axis=1)[counts.any(axis=1)], minlength=len(scripts))
    return frozenset(scripts[i] for i in np.flatnonzero(main >= known_from(texts)))


def _shares_in_other_folds(
    read: Read, fold: np.ndarray, with_char: np.ndarray, with_trigram: np.ndarray, scripts: frozenset[str]
) -> np.ndarray:
    """Return the shares of each training text, float (texts, 3), where known is what is known without its fold."""
    texts = len(fold)
    others = texts - np.bincount(fold, minlength=FOLDS)
    least = np.array([known_from(count) for count in others])
    own = fold[read.text]  # of each character

    def unknown(texts_with: np.ndarray, what: np.ndarray) -> np.ndarray:
        elsewhere = texts_with.sum(axis=1, keepdims=True) - texts_with  # (values, FOLDS)
        return (elsewhere < least)[what, own]

    script = TextReader(scripts, [])
    for code in np.flatnonzero(with_char.any(axis=1)).tolist():
        script.look_up(code)
    placed = Read(texts, read.text, script.kinds[read.codes], read.trigrams, read.codes)
    return shares_of(placed, unknown(with_char, read.codes), unknown(with_trigram, hashed(read.trigrams, BITS)))


def _ranges(codes: Sequence[int] | np.ndarray) -> list[list[int]]:
    """Return sorted code points as ranges, first and last."""
    found: list[list[int]] = []
    for code in map(int, codes):
        if found and code == found[-1][1] + 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found

"""What the command line needs of a model, and how it prints texts."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol


class Model(Protocol):
    """The model that `load` of how_to_load.py returns."""

    encode: Callable[[Sequence[str]], Sequence[Any]]
    """Texts -> an array of token ids for each."""

    def predict(self, texts: Sequence[str], batch_size: int = 1) -> list[tuple[str, float]]:
        """Return label and probability of each text."""
        ...

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> Any:
        """Return an array of probabilities (texts, labels)."""
        ...


def largest_difference(scores: Iterable[Iterable[float]], others: Iterable[Iterable[float]]) -> float:
    """Return the largest difference between scores (texts, labels) and `others` of the same shape."""
    return max(abs(float(a) - float(b)) for row, other in zip(scores, others) for a, b in zip(row, other))


def printable(text: str) -> str:
    """Return `text` with control, format and escape characters, which could change a terminal, as escapes."""
    controls = [c for c in set(text) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    hidden = {
        ord(c): ascii(c)[1:-1] for c in controls if c not in "\t\u200c\u200d"
    }  # not tabs and the joiners of words
    return text.translate({code: f"\\x{code:02x}" if code < 0x100 else escape for code, escape in hidden.items()})

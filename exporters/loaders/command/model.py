"""What the command line needs of a model, and how it prints texts."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
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


UNSURE = "unsure"
"""The answer to a text whose label has a lower probability than config.json asks for."""


def answer_below(folder: Path) -> float | None:
    """Return the probability below which the package in `folder` answers UNSURE; None if it always answers.

    Raises: ValueError if config.json does not state a probability.
    """
    found = json.loads((folder / "config.json").read_text("utf-8")).get("abstain")
    if found is None:
        return None
    below = found.get("below") if isinstance(found, dict) else None
    if not isinstance(below, (int, float)) or not 0 <= below <= 1:
        raise ValueError("config.json: abstain must have a probability named below")
    return float(below)


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

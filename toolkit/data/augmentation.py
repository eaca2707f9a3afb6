"""Cheap variants of texts, for a teacher to label: words dropped, words swapped, halves of two texts mixed."""

from collections.abc import Sequence

import numpy as np

DROPPED = 0.15
"""Share of the words that are dropped, one at least."""


def variants(texts: Sequence[str], groups: np.ndarray, seed: int) -> list[str]:
    """One variant of each text, in order; the same for the same seed.

    groups: int (texts,); halves are mixed within a group only, so that a fold's texts stay among themselves.
    The three kinds come about equally often; a text of one word can only be mixed.
    """
    random = np.random.default_rng(seed)
    members = {group: np.flatnonzero(groups == group) for group in np.unique(groups)}
    made = []
    for text, group in zip(texts, groups, strict=True):
        words = text.split()
        kind = random.integers(3) if len(words) > 1 else 2
        if kind == 0:
            made.append(" ".join(_dropped(words, random)))
        elif kind == 1:
            made.append(" ".join(_swapped(words, random)))
        else:
            other = texts[random.choice(members[group])].split()
            made.append(" ".join(_mixed(words, other)))
    return made


def _dropped(words: list[str], random: np.random.Generator) -> list[str]:
    kept = random.random(len(words)) >= DROPPED
    if kept.all():
        kept[random.integers(len(words))] = False
    if not kept.any():
        kept[random.integers(len(words))] = True
    return [word for word, keep in zip(words, kept, strict=True) if keep]


def _swapped(words: list[str], random: np.random.Generator) -> list[str]:
    left = random.integers(len(words) - 1)
    return [*words[:left], words[left + 1], words[left], *words[left + 2 :]]


def _mixed(words: list[str], other: list[str]) -> list[str]:
    """The first half of one text and the second half of another."""
    return [*words[: (len(words) + 1) // 2], *other[len(other) // 2 :]]

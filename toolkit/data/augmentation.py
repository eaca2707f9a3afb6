"""Augmentation: variants of texts for the teacher to label, by dropping, swapping and mixing words."""

from collections.abc import Sequence

import numpy as np

DROPPED = 0.15
"""Probability that a word is dropped; at least one word is."""


def variants(texts: Sequence[str], groups: np.ndarray, seed: int) -> list[str]:
    """Return one variant of each text, in order; deterministic for a given seed.

    The variant drops words, swaps two neighboring words, or joins the first half of the text and the second half of
    another one, each with probability 1/3. A text of one word is always joined.

    groups: int (texts,); texts are joined only within a group, so that no text crosses folds.
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
    """Return the first half of one text and the second half of another."""
    return [*words[: (len(words) + 1) // 2], *other[len(other) // 2 :]]

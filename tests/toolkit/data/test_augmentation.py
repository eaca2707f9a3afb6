from collections import Counter

import numpy as np
import pytest

from toolkit.data.augmentation import variants

TEXTS = [f"{'abcdefgh'[i % 8]}{i} two{i} three{i} four{i} five{i}" for i in range(60)]
GROUPS = np.arange(60) % 3


def kind_of(made: str, text: str) -> str:
    """Return how a variant was made, from its words: dropped, swapped or mixed."""
    before, after = text.split(), made.split()
    if len(after) < len(before) and [word for word in before if word in after] == after:
        return "dropped"
    if Counter(after) == Counter(before) and after != before:
        return "swapped"
    return "mixed"


def test_each_text_gets_one_variant_and_the_same_for_the_same_seed() -> None:
    made = variants(TEXTS, GROUPS, seed=1)
    assert len(made) == len(TEXTS)
    assert variants(TEXTS, GROUPS, seed=1) == made
    assert variants(TEXTS, GROUPS, seed=2) != made


def test_the_three_kinds_are_equally_frequent() -> None:
    texts, groups = TEXTS * 20, np.tile(GROUPS, 20)
    found = Counter(kind_of(made, text) for made, text in zip(variants(texts, groups, seed=0), texts, strict=True))
    assert set(found) == {"dropped", "swapped", "mixed"}
    assert min(found.values()) > len(texts) / 4


def test_a_swap_moves_only_two_neighbors() -> None:
    for made, text in zip(variants(TEXTS, GROUPS, seed=0), TEXTS, strict=True):
        if kind_of(made, text) == "swapped":
            before, after = text.split(), made.split()
            (left, right) = (place for place in range(5) if before[place] != after[place])
            assert right == left + 1


def test_a_mix_is_the_first_half_of_the_text_and_the_second_of_one_in_its_group() -> None:
    ends = {text.split()[-1]: group for text, group in zip(TEXTS, GROUPS, strict=True)}
    mixed = 0
    for made, text, group in zip(variants(TEXTS, GROUPS, seed=0), TEXTS, GROUPS, strict=True):
        if kind_of(made, text) == "mixed":
            mixed += 1
            assert made.split()[:3] == text.split()[:3]
            assert ends[made.split()[-1]] == group
    assert mixed > 10


@pytest.mark.parametrize("seed", range(5))
def test_a_text_of_one_word_is_mixed_and_never_empty(seed: int) -> None:
    texts = ["one", "two", "three four"] * 10
    made = variants(texts, np.zeros(30, dtype=int), seed)
    assert all(made)
    for variant, text in zip(made, texts, strict=True):
        if " " not in text:
            assert variant.split()[0] == text
            assert len(variant.split()) == 2


def test_a_single_text_is_mixed_with_itself() -> None:
    assert variants(["word"], np.array([4]), seed=0) == ["word word"]


def test_no_texts_have_no_variants() -> None:
    assert variants([], np.zeros(0, dtype=int), seed=0) == []

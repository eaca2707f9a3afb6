"""Perturbed texts: the same every time, different from the original, and still the same text to a person."""

import unicodedata

import pytest

from toolkit.data.normalization import normalize
from toolkit.evaluation.reliability.perturbations import PERTURBATIONS, perturbed

TEXTS = ["A good book, and a long evening by the sea", "ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে।", "кот и пёс", "a", "", "12 🙂"]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_changes_are_the_same_every_time_and_do_not_depend_on_other_texts(name: str) -> None:
    assert perturbed(TEXTS, name) == perturbed(TEXTS, name)
    assert perturbed(TEXTS[::-1], name) == perturbed(TEXTS, name)[::-1]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_latin_texts_are_changed_and_not_much(name: str) -> None:
    text = TEXTS[0]
    (changed,) = perturbed([text], name)
    assert changed != text
    assert abs(len(changed) - len(text)) <= 5


@pytest.mark.parametrize("name", sorted(set(PERTURBATIONS) - {"digit for letter", "other case"}))
def test_bangla_texts_are_changed(name: str) -> None:
    (changed,) = perturbed([TEXTS[1]], name)
    assert changed != TEXTS[1]


@pytest.mark.parametrize("name", ["digit for letter", "other case"])
def test_a_change_that_fits_no_script_changes_nothing(name: str) -> None:
    assert perturbed([TEXTS[1]], name) == [TEXTS[1]]


def test_a_typo_keeps_the_kind_of_letters() -> None:
    (changed,) = perturbed([TEXTS[0]], "typo")
    kinds = [[unicodedata.category(char) for char in text] for text in (TEXTS[0], changed)]
    assert kinds[0] == kinds[1]
    assert sum(a != b for a, b in zip(TEXTS[0], changed, strict=True)) == 2  # of ten words


def test_the_normalizer_removes_zero_width_characters() -> None:
    (changed,) = perturbed([TEXTS[0]], "zero-width character")
    assert normalize(changed) == normalize(TEXTS[0])

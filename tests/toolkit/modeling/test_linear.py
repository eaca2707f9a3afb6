"""The linear baseline can be saved and loaded without changes."""

from dataclasses import replace

import numpy as np
import pytest

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.linear import TEXT_FILE, WEIGHTS_FILE, load_linear, save
from toolkit.training.linear_fit import fit_linear
from toolkit.utils.errors import InputError

WORDS = {"sun": ("bright", "warm", "yellow"), "sea": ("wave", "salt", "blue"), "wood": ("leaf", "moss", "green")}
PLACES = ("hill", "town", "garden", "road", "island", "house", "market", "river")


def corpus_of(labels: tuple[str, ...], rows: int = 48) -> Corpus:
    """Return a corpus of distinct made-up texts."""
    texts = [
        f"{labels[i % len(labels)]} {WORDS[labels[i % len(labels)]][i % 3]} {PLACES[i % 8]} {PLACES[i // 8 % 8]} {i}"
        for i in range(rows)
    ]
    table = Table("made-up", {"text": texts, "label": [labels[i % len(labels)] for i in range(rows)]})
    return corpus_from_table(table, CorpusSettings(folds=2))


@pytest.mark.parametrize("labels", [("sea", "sun"), ("sea", "sun", "wood")])
def test_saved_linear_baseline_gives_bit_identical_probabilities(labels: tuple[str, ...], tmp_path) -> None:
    corpus = corpus_of(labels)
    model = replace(fit_linear(corpus).model, rule=DecisionRule(offsets=(0.5,) * len(labels)))
    save(model, tmp_path / "linear")
    loaded = load_linear(tmp_path / "linear")
    texts = [*corpus.texts, "", "নতুন কথা", "SUN\u00a0Wave\u200c"]
    np.testing.assert_array_equal(model.predict_proba(texts), loaded.predict_proba(texts))
    assert (loaded.labels, loaded.rule) == (model.labels, model.rule)


def test_texts_that_are_equal_after_normalization_have_equal_probabilities() -> None:
    model = fit_linear(corpus_of(("sea", "sun"))).model
    found = model.predict_proba(["sun warm hill", "  SUN\u00a0\u00a0warm\u200b hill "])
    np.testing.assert_array_equal(found[0], found[1])


def test_probabilities_of_more_than_two_labels_sum_to_one() -> None:
    model = fit_linear(corpus_of(("sea", "sun", "wood"))).model
    np.testing.assert_allclose(model.predict_proba(["leaf", "wave", "?"]).sum(axis=1), 1, atol=1e-6)


def test_no_texts_give_no_rows() -> None:
    assert fit_linear(corpus_of(("sea", "sun"))).model.predict_proba([]).shape == (0, 2)


def test_a_folder_without_a_linear_baseline_is_reported_in_one_line(tmp_path) -> None:
    with pytest.raises(InputError, match="not a saved linear baseline"):
        load_linear(tmp_path)


def test_files_of_two_linear_baselines_do_not_load_as_one(tmp_path) -> None:
    for name, rows in (("a", 48), ("b", 96)):
        save(fit_linear(corpus_of(("sea", "sun"), rows)).model, tmp_path / name)
    (tmp_path / "a" / WEIGHTS_FILE).write_bytes((tmp_path / "b" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(InputError, match="do not match"):
        load_linear(tmp_path / "a")


@pytest.mark.parametrize(("file", "content"), [(TEXT_FILE, b"{"), (TEXT_FILE, b"{}"), (WEIGHTS_FILE, b"\x00" * 20)])
def test_a_damaged_linear_baseline_is_reported_in_one_line(file: str, content: bytes, tmp_path) -> None:
    save(fit_linear(corpus_of(("sea", "sun"))).model, tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a saved linear baseline"):
        load_linear(tmp_path)

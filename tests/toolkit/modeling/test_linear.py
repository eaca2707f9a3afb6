"""The linear baseline equals the scikit-learn pipeline, and can be saved and loaded without changes."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.normalization import normalize
from toolkit.data.tables import Table
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration
from toolkit.modeling.linear import INVERSE_REGULARIZATION, TEXT_FILE, WEIGHTS_FILE, fit_linear, load_linear, save
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
def test_linear_baseline_equals_the_sklearn_pipeline_on_the_training_rows(labels: tuple[str, ...]) -> None:
    corpus = corpus_of(labels)
    plain = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2),
        LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000),
    )
    train = corpus.rows("train")
    plain.fit([normalize(text).lower() for text in corpus.take(train)], corpus.labels[train])
    found = fit_linear(corpus).predict_proba(corpus.texts)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, plain.predict_proba(corpus.texts).astype(np.float32))


@pytest.mark.parametrize("labels", [("sea", "sun"), ("sea", "sun", "wood")])
def test_saved_linear_baseline_gives_bit_identical_probabilities(labels: tuple[str, ...], tmp_path) -> None:
    corpus = corpus_of(labels)
    model = fit_linear(corpus)
    save(model, tmp_path / "linear")
    loaded = load_linear(tmp_path / "linear")
    texts = [*corpus.texts, "", "নতুন কথা", "SUN\u00a0Wave\u200c"]
    np.testing.assert_array_equal(model.predict_proba(texts), loaded.predict_proba(texts))
    assert (loaded.labels, loaded.threshold) == (model.labels, model.threshold)


def test_texts_that_are_equal_after_normalization_have_equal_probabilities() -> None:
    model = fit_linear(corpus_of(("sea", "sun")))
    found = model.predict_proba(["sun warm hill", "  SUN\u00a0\u00a0warm\u200b hill "])
    np.testing.assert_array_equal(found[0], found[1])


def test_threshold_comes_from_the_validation_rows() -> None:
    corpus = corpus_of(("sea", "sun"))
    model = fit_linear(corpus)
    rows = corpus.rows("validation")
    metrics = calculate_metrics_with_threshold_exploration(
        corpus.labels[rows], model.predict_proba(corpus.take(rows))[:, 1]
    )
    assert model.threshold == metrics["best_threshold"]


def test_more_than_two_labels_have_no_threshold_and_sum_to_one() -> None:
    model = fit_linear(corpus_of(("sea", "sun", "wood")))
    assert model.threshold is None
    np.testing.assert_allclose(model.predict_proba(["leaf", "wave", "?"]).sum(axis=1), 1, atol=1e-6)


def test_no_texts_give_no_rows() -> None:
    assert fit_linear(corpus_of(("sea", "sun"))).predict_proba([]).shape == (0, 2)


def test_a_folder_without_a_linear_baseline_is_reported_in_one_line(tmp_path) -> None:
    with pytest.raises(InputError, match="not a saved linear baseline"):
        load_linear(tmp_path)


def test_files_of_two_linear_baselines_do_not_load_as_one(tmp_path) -> None:
    for name, rows in (("a", 48), ("b", 96)):
        save(fit_linear(corpus_of(("sea", "sun"), rows)), tmp_path / name)
    (tmp_path / "a" / WEIGHTS_FILE).write_bytes((tmp_path / "b" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(InputError, match="do not match"):
        load_linear(tmp_path / "a")


@pytest.mark.parametrize(("file", "content"), [(TEXT_FILE, b"{"), (TEXT_FILE, b"{}"), (WEIGHTS_FILE, b"\x00" * 20)])
def test_a_damaged_linear_baseline_is_reported_in_one_line(file: str, content: bytes, tmp_path) -> None:
    save(fit_linear(corpus_of(("sea", "sun"))), tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a saved linear baseline"):
        load_linear(tmp_path)

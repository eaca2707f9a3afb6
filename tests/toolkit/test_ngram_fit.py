import itertools
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from toolkit.classifier import Classifier
from toolkit.errors import InputError
from toolkit.metrics import softmax
from toolkit.ngram import SPACE, character_tokenizer
from toolkit.ngram_fit import RIDGES, fit_ngram, tfidf
from toolkit.training import Examples

WORDS = (
    "sea",
    "sun",
    "rain",
    "wind",
    "snow",
    "hail",
    "fog",
    "mist",
    "dew",
    "ice",
    "heat",
    "cold",
    "calm",
    "gust",
    "tide",
)
TEXTS = [" ".join(words) for words in itertools.islice(itertools.permutations(WORDS, 3), 0, 3360, 7)]
STUDENT = "ngram:16"


def linear_teacher(labels: int, texts: list[str]) -> np.ndarray:
    """Logits (texts, labels) from how often each word stands in a text: linear in n-grams, as all words are."""
    weights = np.random.default_rng(1).normal(size=(len(WORDS), labels)) * 2
    return np.array([[word in text.split() for word in WORDS] for text in texts]) @ weights + np.arange(labels) * 0.3


def split(labels: int) -> tuple[Examples, Examples, np.ndarray]:
    """Training rows, validation rows and the teacher's logits on the latter."""
    order = np.random.default_rng(0).permutation(len(TEXTS))
    texts = [TEXTS[i] for i in order]
    logits = linear_teacher(labels, texts)
    own = logits.argmax(axis=1)
    cut = 360
    return Examples(texts[:cut], own[:cut], logits[:cut]), Examples(texts[cut:], own[cut:]), logits[cut:]


def fitted(labels: int) -> tuple[Classifier, dict[str, Any]]:
    train, validation, _ = split(labels)
    return fit_ngram(STUDENT, train, validation, tuple(f"label {i}" for i in range(labels)))


@pytest.mark.parametrize("labels", [2, 7])
def test_a_linear_teacher_is_learned(labels: int) -> None:
    made, details = fitted(labels)
    _, validation, logits = split(labels)
    expected = logits - logits.mean(axis=1, keepdims=True)
    found = made.predict_logits(validation.texts)
    assert found.shape == (len(validation.texts), labels)
    assert 1 - ((found - expected) ** 2).sum() / (expected**2).sum() > 0.98
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
    assert made.labels == tuple(f"label {i}" for i in range(labels))
    assert 100 < details["table_rows_used"] < 2**16


def test_what_is_added_to_all_logits_of_a_text_changes_nothing() -> None:
    train, validation, _ = split(7)
    assert train.teacher_logits is not None
    shifted = train.teacher_logits + np.arange(len(train.texts))[:, None]
    names = tuple("abcdefg")
    one, _ = fit_ngram(STUDENT, train, validation, names)
    other, _ = fit_ngram(STUDENT, Examples(train.texts, train.labels, shifted), validation, names)
    np.testing.assert_allclose(one.predict_logits(validation.texts), other.predict_logits(validation.texts), atol=1e-3)


def test_the_same_rows_give_the_same_bytes() -> None:
    for one, other in zip(fitted(2)[0].network.parameters(), fitted(2)[0].network.parameters(), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_the_penalty_is_the_one_with_the_least_validation_loss() -> None:
    made, details = fitted(2)
    _, validation, _ = split(2)
    losses = [tried["val_loss"] for tried in details["history"]]
    assert [tried["ridge"] for tried in details["history"]] == list(RIDGES)
    assert details["ridge"] == RIDGES[int(np.argmin(losses))]
    assert details["best_epoch"] == int(np.argmin(losses)) + 1
    probabilities = softmax(made.predict_logits(validation.texts).astype(np.float64))
    own = -np.log(probabilities[np.arange(len(probabilities)), validation.labels]).mean()
    assert own == pytest.approx(min(losses), abs=1e-6)


def test_validation_labels_alone_decide_the_penalty() -> None:
    train, validation, _ = split(2)
    wrong = Examples(validation.texts, 1 - validation.labels)
    right, of_right = fit_ngram(STUDENT, train, validation, ("a", "b"))
    _, of_wrong = fit_ngram(STUDENT, train, wrong, ("a", "b"))
    assert of_right["ridge"] < of_wrong["ridge"] == max(RIDGES)
    relabelled = Examples(train.texts, 1 - train.labels, train.teacher_logits)
    again, _ = fit_ngram(STUDENT, relabelled, validation, ("a", "b"))
    assert again.predict_logits(TEXTS[:9]).tobytes() == right.predict_logits(TEXTS[:9]).tobytes()


def test_tfidf_is_that_of_char_wb_counts_where_nothing_collides() -> None:
    texts = ["ভালো না খারাপ", "ভালো ভালো", "a bb ccc", "না", "sea sea sun", "খারাপও ভালো"]
    tokenizer = character_tokenizer(texts)
    plain = [tokenizer.normalizer.normalize_str(text).replace(SPACE, " ") for text in texts]
    counts = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), lowercase=False).fit_transform(plain).toarray()
    idf = np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))) + 1
    expected = counts * idf / np.sqrt((counts * idf**2).sum(axis=1, keepdims=True))
    features = tfidf(tokenizer, texts, 2**20)
    used = np.flatnonzero(features.squared_idf)
    assert 0 not in used
    assert len(used) == counts.shape[1]
    np.testing.assert_allclose(np.sort(features.squared_idf[used]), np.sort(idf**2))
    found = features.matrix[:, used].toarray()
    # Columns stand in the order of their hashes, so compare what does not depend on it.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(expected, axis=1), atol=1e-5)


@pytest.mark.parametrize("labels", [2, 7])
def test_odd_texts_are_answered(labels: int) -> None:
    made, _ = fitted(labels)
    odd = ["", "🙂", "zzz qqq", "sea " * 2000, "SEA\u00a0sun"]
    found = made.predict_logits(odd)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(made.predict_proba(odd).sum(axis=1), 1, atol=1e-6)
    assert made.predict_logits(["SEA\u00a0sun"]).tobytes() == made.predict_logits(["sea sun"]).tobytes()


@pytest.mark.parametrize("name", ["ngram:", "ngram:99", "ngram:two"])
def test_a_broken_name_is_refused(name: str) -> None:
    train, validation, _ = split(2)
    with pytest.raises(InputError, match="write ngram"):
        fit_ngram(name, train, validation, ("a", "b"))

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from toolkit.evaluation.metrics import softmax
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import SPACE, character_tokenizer
from toolkit.training.dataset import Examples
from toolkit.training.losses import UNLABELED
from toolkit.training.ngram_regression import (
    LABEL_LOGIT,
    RATIO_FLOOR,
    RATIO_POWER,
    RIDGES,
    fit_ngram,
    ratio_scales,
    tfidf,
)
from toolkit.utils.errors import InputError

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
    """Return logits (texts, labels) that are linear in the words of a text, and so in its n-grams."""
    weights = np.random.default_rng(1).normal(size=(len(WORDS), labels)) * 2
    return np.array([[word in text.split() for word in WORDS] for text in texts]) @ weights + np.arange(labels) * 0.3


def split(labels: int) -> tuple[Examples, Examples, np.ndarray]:
    """Return training rows, validation rows, and the teacher's logits of the validation rows."""
    order = np.random.default_rng(0).permutation(len(TEXTS))
    texts = [TEXTS[i] for i in order]
    logits = linear_teacher(labels, texts)
    own = logits.argmax(axis=1)
    cut = 360
    return Examples(texts[:cut], own[:cut], logits[:cut]), Examples(texts[cut:], own[cut:]), logits[cut:]


def fitted(labels: int) -> tuple[Classifier, dict[str, Any]]:
    train, validation, _ = split(labels)
    return fit_ngram(STUDENT, train, validation, tuple(f"label {i}" for i in range(labels)), 1.0)


@pytest.mark.parametrize("labels", [2, 7])
def test_the_student_learns_a_linear_teacher(labels: int) -> None:
    made, details = fitted(labels)
    _, validation, logits = split(labels)
    expected = logits - logits.mean(axis=1, keepdims=True)
    found = made.predict_logits(validation.texts)
    assert found.shape == (len(validation.texts), labels)
    assert 1 - ((found - expected) ** 2).sum() / (expected**2).sum() > 0.98
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
    assert made.labels == tuple(f"label {i}" for i in range(labels))
    assert 100 < details["table_rows_used"] < 2**16


def test_a_constant_added_to_all_logits_of_a_text_changes_nothing() -> None:
    train, validation, _ = split(7)
    assert train.teacher_logits is not None
    shifted = train.teacher_logits + np.arange(len(train.texts))[:, None]
    names = tuple("abcdefg")
    one, _ = fit_ngram(STUDENT, train, validation, names, 0.7)
    other, _ = fit_ngram(STUDENT, Examples(train.texts, train.labels, shifted), validation, names, 0.7)
    np.testing.assert_allclose(one.predict_logits(validation.texts), other.predict_logits(validation.texts), atol=1e-3)


def test_fitting_is_reproducible() -> None:
    for one, other in zip(fitted(2)[0].network.parameters(), fitted(2)[0].network.parameters(), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_the_penalty_with_the_lowest_validation_loss_is_selected() -> None:
    made, details = fitted(2)
    _, validation, _ = split(2)
    losses = [epoch["val_loss"] for epoch in details["history"]]
    assert [epoch["ridge"] for epoch in details["history"]] == list(RIDGES)
    assert details["ridge"] == RIDGES[int(np.argmin(losses))]
    assert details["best_epoch"] == int(np.argmin(losses)) + 1
    probabilities = softmax(made.predict_logits(validation.texts).astype(np.float64))
    own = -np.log(probabilities[np.arange(len(probabilities)), validation.labels]).mean()
    assert own == pytest.approx(min(losses), abs=1e-6)


def test_watch_is_called_for_each_penalty() -> None:
    train, validation, _ = split(2)
    seen: list[tuple[int, dict[str, float]]] = []
    _, details = fit_ngram(STUDENT, train, validation, ("a", "b"), 0.7, lambda *arguments: seen.append(arguments))
    assert seen == list(enumerate(details["history"], 1))


def test_the_penalty_depends_only_on_validation_labels() -> None:
    train, validation, _ = split(2)
    wrong = Examples(validation.texts, 1 - validation.labels)
    right, of_right = fit_ngram(STUDENT, train, validation, ("a", "b"), 1.0)
    _, of_wrong = fit_ngram(STUDENT, train, wrong, ("a", "b"), 1.0)
    assert of_right["ridge"] < of_wrong["ridge"] == max(RIDGES)
    relabeled = Examples(train.texts, 1 - train.labels, train.teacher_logits)
    again, _ = fit_ngram(STUDENT, relabeled, validation, ("a", "b"), 1.0)
    assert again.predict_logits(TEXTS[:9]).tobytes() == right.predict_logits(TEXTS[:9]).tobytes()


def test_tfidf_equals_that_of_char_wb_counts_without_hash_collisions() -> None:
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
    # Columns are in the order of their hashes, so compare values that do not depend on the order.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(expected, axis=1), atol=1e-5)


@pytest.mark.parametrize("labels", [2, 3])
def test_the_scale_of_an_ngram_is_its_naive_bayes_ratio_in_soft_labels(labels: int) -> None:
    random = np.random.default_rng(0)
    counts = random.integers(0, 3, (30, 8)).astype(np.float64)
    logits = random.normal(size=(30, labels))
    wanted = logits[:, 1:] - logits[:, :1] if labels == 2 else logits
    shares = softmax(logits)[:, 1:] if labels == 2 else softmax(logits)
    found = ratio_scales(csr_matrix(counts), wanted)
    assert found.shape == (shares.shape[1], 8)
    for output in range(shares.shape[1]):
        with_it = np.array([sum(p for p, n in zip(shares[:, output], column, strict=True) if n) for column in counts.T])
        without = np.array(
            [sum(1 - p for p, n in zip(shares[:, output], column, strict=True) if n) for column in counts.T]
        )
        ratio = np.log(((1 + with_it) / (1 + with_it).sum()) / ((1 + without) / (1 + without).sum()))
        np.testing.assert_allclose(found[output], np.abs(ratio) ** RATIO_POWER + RATIO_FLOOR, rtol=1e-5)


@pytest.mark.parametrize("labels", [2, 7])
def test_labels_have_their_weight_in_the_targets(labels: int) -> None:
    train, validation, _ = split(labels)
    assert train.teacher_logits is not None
    names = tuple("abcdefg"[:labels])
    own = np.where(np.arange(labels) == train.labels[:, None], LABEL_LOGIT, 0.0)
    by_hand = Examples(train.texts, train.labels, 0.6 * train.teacher_logits + 0.4 * own)
    made, _ = fit_ngram(STUDENT, train, validation, names, 0.6)
    expected, _ = fit_ngram(STUDENT, by_hand, validation, names, 1.0)
    np.testing.assert_allclose(made.predict_logits(TEXTS[:50]), expected.predict_logits(TEXTS[:50]), atol=1e-4)


def test_unlabeled_texts_use_the_teacher_logits_only() -> None:
    train, validation, _ = split(2)
    known = np.where(np.arange(len(train.labels)) % 2 == 0, train.labels, UNLABELED)
    assert train.teacher_logits is not None
    without_labels = Examples(train.texts, np.full(len(known), UNLABELED), train.teacher_logits)
    all_teacher, _ = fit_ngram(STUDENT, train, validation, ("a", "b"), 1.0)
    unlabeled, _ = fit_ngram(STUDENT, without_labels, validation, ("a", "b"), 0.3)
    assert unlabeled.predict_logits(TEXTS[:9]).tobytes() == all_teacher.predict_logits(TEXTS[:9]).tobytes()
    some, _ = fit_ngram(STUDENT, Examples(train.texts, known, train.teacher_logits), validation, ("a", "b"), 0.3)
    assert some.predict_logits(TEXTS[:9]).tobytes() != all_teacher.predict_logits(TEXTS[:9]).tobytes()


@pytest.mark.parametrize("labels", [2, 7])
def test_odd_texts_can_be_predicted(labels: int) -> None:
    made, _ = fitted(labels)
    odd = ["", "🙂", "zzz qqq", "sea " * 2000, "SEA\u00a0sun"]
    found = made.predict_logits(odd)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(made.predict_proba(odd).sum(axis=1), 1, atol=1e-6)
    assert made.predict_logits(["SEA\u00a0sun"]).tobytes() == made.predict_logits(["sea sun"]).tobytes()


@pytest.mark.parametrize("name", ["ngram:", "ngram:99", "ngram:two"])
def test_an_invalid_name_is_refused(name: str) -> None:
    train, validation, _ = split(2)
    with pytest.raises(InputError, match="use ngram"):
        fit_ngram(name, train, validation, ("a", "b"), 1.0)

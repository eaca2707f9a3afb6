import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from toolkit.evaluation.metrics import softmax
from toolkit.modeling.ngram import SPACE, character_tokenizer
from toolkit.training.losses import UNLABELED
from toolkit.training.ngram.regression import (
    LABEL_LOGIT,
    RATIO_FLOOR,
    RATIO_POWER,
    Features,
    features_of,
    ratio_scales,
    tfidf,
    wanted_outputs,
)


def test_tfidf_equals_that_of_char_wb_counts_without_hash_collisions() -> None:
    texts = ["ভালো না খারাপ", "ভালো ভালো", "a bb ccc", "না", "sea sea sun", "খারাপও ভালো"]
    tokenizer = character_tokenizer(texts)
    plain = [tokenizer.normalizer.normalize_str(text).replace(SPACE, " ") for text in texts]
    vectorizer = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), lowercase=False, min_df=2)
    counts = vectorizer.fit_transform(plain).toarray()
    idf = np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))) + 1
    expected = counts * idf / np.sqrt((counts * idf**2).sum(axis=1, keepdims=True))
    features = tfidf(tokenizer, texts, 2**20)
    used = np.flatnonzero(features.rows.squared_idf)
    assert 0 not in used
    assert len(used) == counts.shape[1]
    np.testing.assert_allclose(np.sort(features.rows.squared_idf[used]), np.sort(idf**2))
    found = features.matrix[:, used].toarray()
    # Columns are in the order of their hashes, so compare values that do not depend on the order.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(expected, axis=1), atol=1e-5)


def test_words_and_pairs_of_words_are_features_beside_the_windows() -> None:
    texts = ["ভালো না খারাপ", "ভালো না", "a bb ccc", "না", "sea sea sun bb ccc", "খারাপ ভালো", ""]
    tokenizer = character_tokenizer(texts)
    features = tfidf(tokenizer, texts, 2**20, words=True)
    rows = features.rows
    assert (len(rows.squared_idf), rows.word_rows) == (2**20, 2**19)
    vectorizer = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", lowercase=False, min_df=2)
    counts = vectorizer.fit_transform(texts).toarray()
    idf = np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))) + 1
    of_words = slice(2**20 - 2**19, None)
    np.testing.assert_allclose(np.sort(rows.squared_idf[of_words])[-len(idf) :], np.sort(idf**2))
    assert np.count_nonzero(rows.squared_idf[of_words]) == len(idf)
    plain = tfidf(tokenizer, texts, 2**20)
    assert np.count_nonzero(plain.rows.squared_idf) == np.count_nonzero(rows.squared_idf[: -(2**19)])
    # The factor of words: over all texts, they weigh as much as the windows. One norm divides both.
    squares = rows.squared_idf * np.asarray(tfidf_counts(features)).sum(axis=0)
    assert squares[of_words].sum() * rows.factors[-1] ** 2 == pytest.approx(squares[: -(2**19)].sum())
    assert set(rows.factors[: -(2**19)]) == {1.0}
    np.testing.assert_array_equal(features_of(tokenizer, texts, rows).toarray(), features.matrix.toarray())


def tfidf_counts(features: Features) -> np.ndarray:
    """Return how often each n-gram is in each text, from its features: the norm is that of all n-grams."""
    used = np.flatnonzero(features.rows.squared_idf)
    weights = np.sqrt(features.rows.squared_idf[used]) * features.rows.factors[used]
    ratios = features.matrix[:, used].toarray() / weights  # counts over the norm of the text
    least = np.array([row[row > 0].min() if row.any() else 1.0 for row in ratios])
    found = np.zeros(features.matrix.shape)
    found[:, used] = np.rint(ratios / least[:, None])
    norms = np.sqrt((found * features.rows.squared_idf).sum(axis=1))
    np.testing.assert_allclose(found[:, used] / np.maximum(norms, 1.0)[:, None], ratios, atol=1e-6)
    return found


def test_features_do_not_depend_on_the_number_of_texts_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'ভালো' if i % 3 else 'sea'} {i} না {'x' * (i % 7)}" for i in range(25)]
    tokenizer = character_tokenizer(texts)
    whole = tfidf(tokenizer, texts, 2**10)
    monkeypatch.setattr("toolkit.modeling.tokenizer.STEP", 4)
    monkeypatch.setattr("toolkit.training.ngram.regression.STEP", 7)
    parts = tfidf(tokenizer, texts, 2**10)
    assert (whole.matrix != parts.matrix).nnz == 0
    assert whole.matrix.dtype == np.float32
    np.testing.assert_array_equal(whole.rows.squared_idf, parts.rows.squared_idf)


def test_ngrams_of_one_text_are_used_if_there_are_no_others() -> None:
    features = tfidf(character_tokenizer(["ab", "cd"]), ["ab", "cd"], 2**20)
    assert np.count_nonzero(features.rows.squared_idf) == len({"_a", "ab", "b_", "_ab", "ab_", "_ab_"}) * 2


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


@pytest.mark.parametrize("labels", [2, 5])
def test_targets_mix_teacher_and_labels_and_unlabeled_texts_use_the_teacher_only(labels: int) -> None:
    random = np.random.default_rng(0)
    teacher, own = random.normal(size=(20, labels)), random.integers(labels, size=20)
    own[::3] = UNLABELED
    found = wanted_outputs(teacher, own, 0.6)
    for row, label in enumerate(own):
        logits = teacher[row] - teacher[row].mean()
        if label != UNLABELED:
            of_label = np.where(np.arange(labels) == label, LABEL_LOGIT, 0.0)
            logits = 0.6 * logits + 0.4 * (of_label - of_label.mean())
        np.testing.assert_allclose(found[row], logits[1:] - logits[0] if labels == 2 else logits, atol=1e-12)

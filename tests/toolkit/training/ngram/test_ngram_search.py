import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from tests.helpers import rest_slow
from toolkit.evaluation.metrics import macro_f1
from toolkit.modeling.ngram import character_tokenizer
from toolkit.training.dataset import Examples
from toolkit.training.losses import UNLABELED
from toolkit.training.nbsvm import log_loss
from toolkit.training.ngram.regression import tfidf
from toolkit.training.ngram.search import NgramFit, fit_ngram, mixture_in, refit_ngram
from toolkit.utils.errors import InputError

WORDS = [
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
]
TEXTS = [" ".join(words) for words in itertools.islice(itertools.permutations(WORDS, 3), 0, 3360, 7)]
VALIDATION_TEXTS = [" ".join(words) for words in itertools.islice(itertools.permutations(WORDS, 3), 3, 3360, 14)]
STUDENT = "ngram:16"
TRAIN = 240


def teacher_logits(labels: int, texts: list[str]) -> np.ndarray:
    """Return logits (texts, labels) that are linear in the words of a text, and so in its n-grams."""
    weights = np.random.default_rng(1).normal(size=(len(WORDS), labels)) * 2
    return np.array([[word in text.split() for word in WORDS] for text in texts]) @ weights + np.arange(labels) * 0.3


def shuffled() -> list[str]:
    return [TEXTS[i] for i in np.random.default_rng(0).permutation(len(TEXTS))]


def data(labels: int, noise: float = 0.0, teacher: str = "good") -> tuple[Examples, list[str], np.ndarray]:
    """Return training examples, other texts and their true labels; a share `noise` of the training labels is wrong."""
    random, texts = np.random.default_rng(2), shuffled()
    logits = teacher_logits(labels, texts)
    true = logits.argmax(axis=1)
    given = np.where(random.random(len(texts)) < noise, random.integers(labels, size=len(texts)), true)[:TRAIN]
    logits_of_teacher = {"good": logits[:TRAIN], "random": random.normal(size=(TRAIN, labels)) * 3, "none": None}[
        teacher
    ]
    return Examples(texts[:TRAIN], given, logits_of_teacher), texts[TRAIN:], true[TRAIN:]


def validation(labels: int) -> Examples:
    return Examples(VALIDATION_TEXTS, teacher_logits(labels, VALIDATION_TEXTS).argmax(axis=1))


def labels_alone(train: Examples) -> Examples:
    return Examples(train.texts, train.labels)


def five_folds(rows: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(rows) % 5


def fitted(
    student: str,
    train: Examples,
    labels: tuple[str, ...],
    alpha: float,
    folds: np.ndarray | None = None,
    watch: Callable[[int, dict[str, float]], None] | None = None,
) -> NgramFit:
    """Fit a student, by default with five folds."""
    folds = five_folds(len(train.texts)) if folds is None else folds
    return fit_ngram(student, train, validation(len(labels)), labels, alpha, folds, watch)


def names(labels: int) -> tuple[str, ...]:
    return tuple(f"label {i}" for i in range(labels))


def accuracy(found: NgramFit, texts: list[str], true: np.ndarray) -> float:
    return float((found.student.predict_logits(texts).argmax(axis=1) == true).mean())


@pytest.mark.parametrize("labels", rest_slow(2, 7))
def test_a_teacher_helps_where_labels_are_noisy(labels: int) -> None:
    train, texts, true = data(labels, noise=0.8 if labels == 2 else 0.4)
    alone = fitted(STUDENT, labels_alone(train), names(labels), 0.7)
    distilled = fitted(STUDENT, train, names(labels), 0.7)
    assert accuracy(distilled, texts, true) > accuracy(alone, texts, true) + 0.02
    assert any(name.startswith("teacher") for name in distilled.details["mixture"])
    assert distilled.student.labels == names(labels)


@pytest.mark.parametrize("labels", rest_slow(2, 3))
def test_a_teacher_that_knows_nothing_is_not_used(labels: int) -> None:
    train, _, _ = data(labels, teacher="random")
    found = fitted(STUDENT, train, names(labels), 1.0)
    assert {name.split(",")[0] for name in found.details["mixture"]} == {"labels"}
    alone = fitted(STUDENT, labels_alone(train), names(labels), 1.0)
    np.testing.assert_array_equal(found.student.predict_logits(TEXTS[:9]), alone.student.predict_logits(TEXTS[:9]))


def test_the_mixture_is_never_worse_than_the_model_of_the_labels() -> None:
    for noise in (0.0, 0.2, 0.6):
        train, _, _ = data(3, noise=noise)
        mixed, alone = (fitted(STUDENT, each, names(3), 0.7).student for each in (train, labels_alone(train)))
        held_out = validation(3)
        with_teacher, own = (log_loss(held_out.labels, each.predict_logits(held_out.texts)) for each in (mixed, alone))
        assert with_teacher <= own


def test_what_a_teacher_tells_of_other_folds_does_not_count() -> None:
    """A teacher of one fold has learned the labels of the others and gives them away: nothing else can be learned."""
    random = np.random.default_rng(3)
    texts = shuffled()[:200]
    labels, folds = random.integers(2, size=200), np.arange(200) % 4
    given_away = Examples(
        [*texts, *texts],  # each text once more, in another fold, with a teacher that knows its label
        np.concatenate([labels, np.full(200, UNLABELED)]),
        np.concatenate([random.normal(size=(200, 2)), 8 * np.eye(2)[labels]]),
    )
    held_out = Examples(VALIDATION_TEXTS, random.integers(2, size=len(VALIDATION_TEXTS)))
    found = fit_ngram(STUDENT, given_away, held_out, names(2), 0.7, np.concatenate([folds, (folds + 1) % 4]))
    assert any(candidate["unlabeled"] for candidate in found.details["candidates"])
    assert {name.split(",")[0] for name in found.details["mixture"]} == {"labels"}
    assert max(each["val_macro_f1"] for each in found.details["history"]) < 0.65


@pytest.mark.parametrize("labels", [2, 3])
def test_without_a_teacher_it_is_a_sum_of_linear_models_of_its_features(labels: int) -> None:
    train, _, _ = data(labels, noise=0.1, teacher="none")
    found = fitted(STUDENT, train, names(labels), 0.7)
    candidates = {each["name"]: each for each in found.details["candidates"]}
    tokenizer = character_tokenizer(train.texts)
    features = tfidf(tokenizer, train.texts, 2**16, found.details["words"]).matrix.toarray()
    features = features[:, features.any(axis=0)]
    parts = [linear_model(features, train.labels, labels, candidates[name]) for name in found.details["mixture"]]
    logits = found.student.predict_logits(train.texts)
    own = ((logits[:, 1:] - logits[:, :1]).T if labels == 2 else logits.T).ravel()
    scales, *_ = np.linalg.lstsq(np.stack(parts, axis=1), own, rcond=None)  # shares times calibration
    assert (scales > 0).all()
    np.testing.assert_allclose(own, np.stack(parts, axis=1) @ scales, atol=0.01 * np.abs(own).max())


def linear_model(features: np.ndarray, labels: np.ndarray, count: int, how: dict[str, Any]) -> np.ndarray:
    """Return the outputs of a candidate by scikit-learn alone, one after the other."""
    outputs = []
    for label in [1] if count == 2 else range(count):
        mine = labels == label
        p, q = (1 + (features[chosen] > 0).sum(axis=0) for chosen in (mine, ~mine))
        scaled = features * (np.log(p / p.sum()) - np.log(q / q.sum()) if how["log_ratio"] else 1)
        weights = "balanced" if how["balanced"] else None
        model = LogisticRegression(C=how["C"], class_weight=weights, tol=1e-6, max_iter=5000)
        if how["loss"] == "hinge":
            model = LinearSVC(C=how["C"], class_weight=weights, random_state=0)
        outputs.append(model.fit(scaled, mine).decision_function(scaled))
    return np.concatenate(outputs)


def test_the_order_of_two_words_is_learned_where_it_decides() -> None:
    """No window of characters crosses a space, so only pairs of words differ between the labels."""
    random = np.random.default_rng(5)
    orders = random.integers(2, size=300)
    texts = [" ".join([random.choice(WORDS), *(("up", "down") if up else ("down", "up"))]) for up in orders]
    held_out = Examples(texts[200:], orders[200:])
    found = fit_ngram(STUDENT, Examples(texts[:200], orders[:200]), held_out, names(2), 0.7, five_folds(200))
    assert found.details["words"]
    plain, words = found.details["features"]
    assert plain["macro_f1"] < 0.7 and words["macro_f1"] > 0.95
    assert accuracy(found, texts[200:], orders[200:]) == 1
    mixture = mixture_in(found.details)
    train = Examples(texts[:200], orders[:200])
    smaller = refit_ngram(2**12, train, held_out, names(2), 0.7, five_folds(200), mixture, found.details["words"])
    assert accuracy(smaller, texts[200:], orders[200:]) == 1


def test_words_are_left_out_where_they_do_not_help() -> None:
    train, _, _ = data(3, noise=0.3, teacher="none")
    labels = np.array([text.count("i") % 3 for text in train.texts])  # parts of words decide
    found = fitted(STUDENT, Examples(train.texts, labels), names(3), 0.7)
    plain, words = found.details["features"]
    assert not found.details["words"] and plain["log_loss"] < words["log_loss"]


def test_out_of_fold_logits_do_not_come_from_models_that_saw_the_text() -> None:
    labels = np.random.default_rng(3).integers(2, size=200)  # nothing can be learned
    found = fitted(STUDENT, Examples(shuffled()[:200], labels), names(2), 0.7)
    assert found.logits is not None
    assert macro_f1(labels, found.logits.argmax(axis=1), 2) < 0.62


def test_with_a_teacher_there_are_no_out_of_fold_predictions() -> None:
    train, _, _ = data(2, noise=0.8)
    rows = np.arange(TRAIN)
    assert fitted(STUDENT, train, names(2), 0.7).out_of_fold(rows) is None
    alone = fitted(STUDENT, labels_alone(train), names(2), 0.7).out_of_fold(rows)
    assert alone is not None and alone.logits.shape == (TRAIN, 2)


def test_unlabeled_texts_are_used_only_if_they_help() -> None:
    train, texts, true = data(3, noise=0.4)
    more = [*train.texts, *texts[:120]]
    labels = np.concatenate([train.labels, np.full(120, UNLABELED)])
    good = np.concatenate([train.teacher_logits, teacher_logits(3, texts[:120])])  # type: ignore[list-item]
    bad = np.concatenate([train.teacher_logits, np.random.default_rng(0).normal(size=(120, 3)) * 9])  # type: ignore[list-item]
    folds = np.concatenate([np.arange(TRAIN) % 4, np.full(120, -1)])
    helped = fitted(STUDENT, Examples(more, labels, good), names(3), 0.7, folds)
    assert any(candidate["unlabeled"] for candidate in helped.details["candidates"])
    harmed = fitted(STUDENT, Examples(more, labels, bad), names(3), 0.7, folds)
    assert accuracy(harmed, texts[120:], true[120:]) > 0.7


@pytest.mark.parametrize("labels", rest_slow(2, 7))
def test_a_constant_added_to_all_logits_of_a_text_changes_nothing(labels: int) -> None:
    train, texts, _ = data(labels, noise=0.3)
    assert train.teacher_logits is not None
    shifted = Examples(train.texts, train.labels, train.teacher_logits + np.arange(TRAIN)[:, None] % 7)
    one, other = (fitted(STUDENT, each, names(labels), 0.7).student for each in (train, shifted))
    np.testing.assert_allclose(one.predict_logits(texts[:50]), other.predict_logits(texts[:50]), atol=1e-2)


def test_fitting_is_reproducible_and_watched() -> None:
    train, _, _ = data(2, noise=0.2)
    seen: list[tuple[int, dict[str, float]]] = []
    first = fitted(STUDENT, train, names(2), 0.7, watch=lambda *arguments: seen.append(arguments))
    second = fitted(STUDENT, train, names(2), 0.7)
    for one, other in zip(first.student.network.parameters(), second.student.network.parameters(), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()
    assert seen == list(enumerate(first.details["history"], 1))
    assert first.details == second.details


@pytest.mark.parametrize("labels", [2, 7])
def test_odd_texts_can_be_predicted(labels: int) -> None:
    train, _, _ = data(labels)
    made = fitted(STUDENT, train, names(labels), 0.7).student
    odd = ["", "🙂", "zzz qqq", "sea " * 2000, "SEA\u00a0sun"]
    assert np.isfinite(made.predict_logits(odd)).all()
    np.testing.assert_allclose(made.predict_proba(odd).sum(axis=1), 1, atol=1e-6)
    assert made.predict_logits(["SEA\u00a0sun"]).tobytes() == made.predict_logits(["sea sun"]).tobytes()


@pytest.mark.parametrize("name", ["ngram:", "ngram:99", "ngram:two"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="use ngram"):
        fitted(name, data(2)[0], ("a", "b"), 1.0)

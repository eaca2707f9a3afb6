import itertools
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from tests.helpers import rest_slow
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.evaluation.rule_choice import best_macro_f1
from toolkit.modeling.ngram import character_tokenizer
from toolkit.training.dataset import Examples
from toolkit.training.losses import UNLABELED
from toolkit.training.ngram_regression import tfidf
from toolkit.training.ngram_search import NgramFit, fit_ngram
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
    return fit_ngram(student, train, labels, alpha, five_folds(len(train.texts)) if folds is None else folds, watch)


def names(labels: int) -> tuple[str, ...]:
    return tuple(f"label {i}" for i in range(labels))


def accuracy(found: NgramFit, texts: list[str], true: np.ndarray) -> float:
    return float((found.student.predict_logits(texts).argmax(axis=1) == true).mean())


@pytest.mark.parametrize("labels", rest_slow(2, 7))
def test_a_teacher_helps_where_labels_are_noisy(labels: int) -> None:
    train, texts, true = data(labels, noise=0.8 if labels == 2 else 0.4)
    alone = fitted(STUDENT, Examples(train.texts, train.labels), names(labels), 0.7)
    distilled = fitted(STUDENT, train, names(labels), 0.7)
    assert accuracy(distilled, texts, true) > accuracy(alone, texts, true) + 0.02
    assert any(name.startswith("teacher") for name in distilled.details["mixture"])
    assert distilled.student.labels == names(labels)


@pytest.mark.parametrize("labels", rest_slow(2, 3))
def test_a_teacher_that_knows_nothing_is_not_used(labels: int) -> None:
    train, _, _ = data(labels, teacher="random")
    found = fitted(STUDENT, train, names(labels), 1.0)
    assert [name.split(",")[0] for name in found.details["mixture"]] == ["labels"]
    alone = fitted(STUDENT, Examples(train.texts, train.labels), names(labels), 1.0)
    np.testing.assert_array_equal(found.student.predict_logits(TEXTS[:9]), alone.student.predict_logits(TEXTS[:9]))


def test_the_mixture_is_never_worse_out_of_fold_than_the_model_of_the_labels() -> None:
    for seed_noise in (0.0, 0.2, 0.6):
        train, _, _ = data(3, noise=seed_noise)
        found = fitted(STUDENT, train, names(3), 0.7)
        mixed = best_macro_f1(train.labels, softmax(found.logits.astype(np.float64)))
        own = max(
            each["val_macro_f1"]
            for each, candidate in zip(found.details["history"], found.details["candidates"], strict=True)
            if candidate["targets"] == "labels"
        )
        assert mixed >= own - 0.005


@pytest.mark.parametrize("labels", [2, 3])
def test_without_a_teacher_it_is_the_nbsvm_of_its_features(labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _, _ = data(labels, noise=0.1, teacher="none")
    found = fitted(STUDENT, train, names(labels), 0.7)
    (chosen,) = found.details["mixture"]
    how = next(each for each in found.details["candidates"] if each["name"] == chosen)
    tokenizer = character_tokenizer(train.texts)
    both = tfidf(tokenizer, train.texts, 2**16).matrix.toarray()
    both = both[:, both.any(axis=0)]
    outputs = []
    for label in [1] if labels == 2 else range(labels):
        mine = train.labels == label
        p, q = (1 + (both[chosen] > 0).sum(axis=0) for chosen in (mine, ~mine))
        ratio = np.log(p / p.sum()) - np.log(q / q.sum())
        weights = "balanced" if how["balanced"] else None
        model = LogisticRegression(C=how["C"], class_weight=weights, tol=1e-6, max_iter=5000)
        if how["loss"] == "hinge":
            model = LinearSVC(C=how["C"], class_weight=weights, random_state=0)
        outputs.append(model.fit(both * ratio, mine).decision_function(both * ratio))
    logits = found.student.predict_logits(train.texts)
    own = (logits[:, 1:] - logits[:, :1]).T if labels == 2 else logits.T
    expected = np.stack(outputs)
    scale = (own * expected).sum() / (expected**2).sum()  # calibration multiplies all logits by one number
    np.testing.assert_allclose(own, scale * expected, atol=0.01 * np.abs(own).max())


def test_out_of_fold_logits_do_not_come_from_models_that_saw_the_text() -> None:
    random = np.random.default_rng(3)
    texts = shuffled()[:200]
    labels = random.integers(2, size=200)  # nothing can be learned
    folds = np.arange(200) % 4
    copies = Examples(
        [*texts, *texts],  # each text once more, without its label but with a teacher that knows it
        np.concatenate([labels, np.full(200, UNLABELED)]),
        np.concatenate([random.normal(size=(200, 2)), 8 * np.eye(2)[labels]]),
    )
    found = fitted(STUDENT, copies, names(2), 0.7, np.concatenate([folds, folds]))
    predicted = found.logits.argmax(axis=1)
    assert macro_f1(labels, predicted, 2) < 0.62
    assert any(candidate["unlabeled"] for candidate in found.details["candidates"])
    assert max(each["val_macro_f1"] for each in found.details["history"]) < 0.65


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

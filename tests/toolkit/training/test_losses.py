import itertools

import numpy as np
import pytest
import torch
from scipy.special import softmax as scipy_softmax
from scipy.stats import entropy

from tests.helpers import random_logits
from toolkit.evaluation.metrics import softmax
from toolkit.training.losses import (
    attention_log_maps,
    attention_loss,
    hard_loss,
    hidden_loss,
    known_loss,
    relation_heads,
    relation_loss,
    soft_loss,
)

LENGTHS = (5, 2, 1)
"""Number of tokens of the three texts in a batch, padded to five."""
MASK = torch.tensor([[int(i < length) for i in range(5)] for length in LENGTHS])


def vectors(width: int, seed: int) -> torch.Tensor:
    """Return random vectors for three texts of five tokens."""
    return torch.tensor(np.random.default_rng(seed).normal(size=(3, 5, width)).astype(np.float32))


def other_padding(states: torch.Tensor, seed: int) -> torch.Tensor:
    return torch.where(MASK.unsqueeze(-1) == 1, states, 100 * vectors(states.shape[-1], seed))


def text_maps(queries: torch.Tensor, keys: torch.Tensor, heads: int, text: int) -> np.ndarray:
    """Return the attention maps (heads, tokens, tokens) of one text without padding, by loops over the definition."""
    length, size = LENGTHS[text], queries.shape[-1] // heads
    maps = np.zeros((heads, length, length))
    for head, i in itertools.product(range(heads), range(length)):
        part = slice(head * size, (head + 1) * size)
        query = queries[text, i, part].double().numpy()
        scores = [float(query @ keys[text, j, part].double().numpy()) / size**0.5 for j in range(length)]
        maps[head, i] = scipy_softmax(scores)
    return maps


def divergence(teacher: list[np.ndarray], student: list[np.ndarray]) -> float:
    """Return the relative entropy of the maps of each text, averaged over heads, tokens and texts."""
    each = [
        entropy(t[head, i], s[head, i])
        for t, s in zip(teacher, student, strict=True)
        for head in range(t.shape[0])
        for i in range(t.shape[1])
    ]
    return float(np.mean(each))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return np.log(softmax(logits.astype(np.float64)))


@pytest.mark.parametrize("kind", ["bce", "focal"])
@pytest.mark.parametrize("weights", [None, [1.0, 1.0, 1.0], [0.2, 3.0, 1.0]])
def test_hard_loss_agrees_with_its_formula(kind: str, weights: list[float] | None) -> None:
    logits, labels = 2 * random_logits(9, 3), np.arange(9) % 3
    chosen = log_softmax(logits)[np.arange(9), labels]
    each = -chosen * ((1 - np.exp(chosen)) ** 2 if kind == "focal" else 1)
    share = np.array(weights or [1.0, 1.0, 1.0])[labels]
    expected = (each * share).sum() / share.sum()
    tensor = None if weights is None else torch.tensor(weights)
    found = hard_loss(torch.tensor(logits), torch.tensor(labels), kind, tensor)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_two_labels_give_binary_cross_entropy() -> None:
    logits, labels = random_logits(7), np.arange(7) % 2
    p = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    assert float(hard_loss(torch.tensor(logits), torch.tensor(labels))) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_of_a_manual_example() -> None:
    """For one row and probability 3/4 of its label, the loss is (1/4)² times -log(3/4)."""
    logits = torch.log(torch.tensor([[0.25, 0.75]]))
    assert float(hard_loss(logits, torch.tensor([1]), "focal")) == pytest.approx(0.25**2 * -np.log(0.75))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("labels", [2, 5])
def test_soft_loss_is_the_divergence_times_t_squared(temperature: float, labels: int) -> None:
    student, teacher = 3 * random_logits(8, labels, 1), 3 * random_logits(8, labels, 2)
    p, q = softmax(teacher.astype(np.float64) / temperature), softmax(student.astype(np.float64) / temperature)
    expected = (p * np.log(p / q)).sum(axis=1).mean() * temperature**2
    found = soft_loss(torch.tensor(student), torch.tensor(teacher), temperature)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_soft_loss_is_zero_for_equal_distributions() -> None:
    logits = torch.tensor(random_logits(8))
    assert float(soft_loss(logits, logits + 3.0, 4.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weights", [None, [0.2, 3.0]])
def test_unlabeled_rows_have_no_loss_and_lower_the_share_of_the_others(weights: list[float] | None) -> None:
    logits, labels = torch.tensor(random_logits(5)), torch.tensor([1, -1, 0, -1, -1])
    tensor = None if weights is None else torch.tensor(weights)
    chosen = -log_softmax(logits.numpy())[[0, 2], [1, 0]]
    share = np.array([1.0, 1.0] if weights is None else [weights[1], weights[0]])
    expected = 2 / 5 * (chosen * share).sum() / share.sum()
    assert float(known_loss(logits, labels, "bce", tensor)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_known_loss_is_hard_loss_if_all_rows_are_labeled_and_zero_if_none_is(kind: str) -> None:
    logits, labels = torch.tensor(random_logits(6)), torch.arange(6) % 2
    assert float(known_loss(logits, labels, kind)) == float(hard_loss(logits, labels, kind))
    assert float(known_loss(logits, torch.full((6,), -1), kind)) == 0


def test_hidden_loss_is_the_mean_squared_error_without_padding() -> None:
    student, teacher = vectors(8, 1), vectors(8, 2)
    squares = [
        (float(student[text, i, k]) - float(teacher[text, i, k])) ** 2
        for text in range(3)
        for i in range(LENGTHS[text])
        for k in range(8)
    ]
    assert float(hidden_loss(student, teacher, MASK)) == pytest.approx(np.mean(squares), rel=1e-5)


def test_hidden_loss_of_a_manual_example() -> None:
    """Two tokens differ by (1, 3) and (0, 0), and padding by 50: the loss is (1 + 9) / 4."""
    student = torch.tensor([[[1.0, 3.0], [0.0, 0.0], [50.0, 50.0]]])
    assert float(hidden_loss(student, torch.zeros(1, 3, 2), torch.tensor([[1, 1, 0]]))) == pytest.approx(2.5)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_maps_agree_with_their_definition(heads: int) -> None:
    queries, keys = vectors(8, 1), vectors(8, 2)
    found = attention_log_maps(queries, keys, heads, MASK).exp().numpy()
    assert found.shape == (3, heads, 5, 5)
    for text, length in enumerate(LENGTHS):
        np.testing.assert_allclose(
            found[text, :, :length, :length], text_maps(queries, keys, heads, text), rtol=1e-4, atol=1e-7
        )
        assert (found[text, :, :, length:] == 0).all()


@pytest.mark.parametrize(("width", "heads"), [(8, 4), (12, 4), (4, 4)])
def test_attention_loss_is_the_divergence_of_each_head(width: int, heads: int) -> None:
    mine, theirs = (vectors(width, 1), vectors(width, 2)), (vectors(8, 3), vectors(8, 4))
    student, teacher = attention_log_maps(*mine, heads, MASK), attention_log_maps(*theirs, 4, MASK)
    expected = divergence([text_maps(*theirs, 4, i) for i in range(3)], [text_maps(*mine, heads, i) for i in range(3)])
    assert float(attention_loss(student, teacher, MASK)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("heads", "teacher_heads"), [(1, 4), (2, 4), (3, 2)])
def test_maps_with_different_numbers_of_heads_are_compared_by_their_mean(heads: int, teacher_heads: int) -> None:
    mine, theirs = (vectors(6, 1), vectors(6, 2)), (vectors(8, 3), vectors(8, 4))
    student, teacher = (
        attention_log_maps(*mine, heads, MASK),
        attention_log_maps(*theirs, teacher_heads, MASK),
    )
    expected = divergence(
        [text_maps(*theirs, teacher_heads, i).mean(0, keepdims=True) for i in range(3)],
        [text_maps(*mine, heads, i).mean(0, keepdims=True) for i in range(3)],
    )
    assert float(attention_loss(student, teacher, MASK)) == pytest.approx(expected, rel=1e-4)


def test_attention_loss_of_a_manual_example() -> None:
    """The attention of the teacher is (3/4, 1/4), that of the student (1/2, 1/2)."""
    teacher, student = (torch.tensor([[[row, row]]]).log() for row in ([0.75, 0.25], [0.5, 0.5]))
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert float(attention_loss(student, teacher, torch.tensor([[1, 1]]))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("width", "teacher_width", "heads"), [(8, 8, 2), (4, 12, 4), (12, 8, 1)])
def test_relation_loss_is_the_divergence_of_self_attention_maps(width: int, teacher_width: int, heads: int) -> None:
    mine = [vectors(width, seed) for seed in (1, 2, 3)]
    theirs = [vectors(teacher_width, seed) for seed in (4, 5, 6)]
    kinds = [
        divergence([text_maps(t, t, heads, i) for i in range(3)], [text_maps(s, s, heads, i) for i in range(3)])
        for s, t in zip(mine, theirs, strict=True)
    ]
    assert float(relation_loss(mine, theirs, heads, MASK)) == pytest.approx(np.mean(kinds), rel=1e-4)


@pytest.mark.parametrize(
    ("student_heads", "teacher_heads", "widths", "expected"),
    [
        (12, 12, (768, 768), 12),
        (4, 12, (128, 768), 4),  # a shape under a base-size teacher
        (8, 12, (256, 768), 4),
        (1, 12, (32, 768), 1),
        (6, 12, (384, 768), 6),
        (12, 12, (312, 768), 12),  # TinyBERT's width
        (4, 4, (6, 8), 2),  # a number of heads that does not divide the width
        (4, 4, (7, 8), 1),
    ],
)
def test_relation_heads_divide_everything(
    student_heads: int, teacher_heads: int, widths: tuple[int, int], expected: int
) -> None:
    assert relation_heads(student_heads, teacher_heads, *widths) == expected


def feature_losses(seed: int, *, pad: bool = False) -> list[float]:
    """Return hidden, attention (equal and different heads) and relation loss against the teacher with seed 0."""
    mine = [vectors(8, 10 * seed + kind) for kind in range(3)]
    theirs = [vectors(8, kind) for kind in range(3)]
    if pad:
        mine, theirs = (
            [other_padding(each, 98) for each in mine],
            [other_padding(each, 99) for each in theirs],
        )
    teacher = attention_log_maps(theirs[0], theirs[1], 4, MASK)
    return [
        float(hidden_loss(mine[0], theirs[0], MASK)),
        *(float(attention_loss(attention_log_maps(mine[0], mine[1], h, MASK), teacher, MASK)) for h in (4, 2)),
        float(relation_loss(mine, theirs, 2, MASK)),
    ]


def test_padding_has_no_influence() -> None:
    assert feature_losses(1, pad=True) == feature_losses(1)
    assert min(feature_losses(1)) > 0.01


def test_a_student_equal_to_its_teacher_has_no_loss() -> None:
    hidden, attention, _, relation = feature_losses(0)
    assert (hidden, attention, relation) == (0, 0, 0)


def test_losses_are_computed_in_float32_under_autocast() -> None:
    expected = feature_losses(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (vectors(8, 1) @ vectors(8, 2).transpose(1, 2)).dtype == torch.bfloat16
        assert feature_losses(1) == expected


def test_states_in_bfloat16_are_compared_in_float32() -> None:
    mine, theirs = vectors(8, 1).bfloat16(), vectors(8, 2).bfloat16()
    found = hidden_loss(mine, theirs, MASK)
    assert found.dtype == attention_log_maps(mine, theirs, 2, MASK).dtype == torch.float32
    assert float(found) == float(hidden_loss(mine.float(), theirs.float(), MASK))


@pytest.mark.parametrize("heads", [2, 4])
def test_gradients_are_finite_and_zero_for_padding(heads: int) -> None:
    """One text has a single token, and masked scores must not become NaN."""
    queries, keys, values = (vectors(8, seed).requires_grad_() for seed in (1, 2, 3))
    teacher = [vectors(8, seed) for seed in (4, 5, 6)]
    maps = attention_log_maps(queries, keys, heads, MASK), attention_log_maps(teacher[0], teacher[1], 4, MASK)
    total = attention_loss(*maps, MASK) + relation_loss([queries, keys, values], teacher, 2, MASK)
    total.backward()
    for each in (queries, keys, values):
        assert each.grad is not None
        assert each.grad.isfinite().all()
        assert each.grad[0].abs().min() > 0
        assert (each.grad[MASK == 0] == 0).all()

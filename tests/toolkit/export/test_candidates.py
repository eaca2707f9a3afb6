from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from toolkit.evaluation.metrics import softmax
from toolkit.export.candidates import BATCH, batch_invariance, loses_too_much


@dataclass(frozen=True)
class BatchDependent:
    """A model whose second logit depends on the longest text of the batch."""

    threshold: float | None = 0.5
    offsets: tuple[float, ...] | None = None
    labels: tuple[str, ...] = ("no", "yes")

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        own = np.array([float(text) for text in texts])
        shift = 0.0 if batch_size == 1 else 0.001 * max(len(text) for text in texts)
        return np.stack([np.zeros(len(texts)), own + shift], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "wrong_before", "wrong_after", "expected"),
    [
        (99, (), (0,), False),  # a point of 99 rows, and one row
        (99, (), (0, 1), True),
        (99, (0,), (1, 2), False),  # one right, two wrong
        (99, (0, 1), (2, 3), False),  # as many as before
        (2_000, (), tuple(range(9)), False),  # 0.45 points
        (2_000, (), tuple(range(12)), True),
    ],
)
def test_one_row_of_few_is_not_too_much(
    rows: int, wrong_before: tuple[int, ...], wrong_after: tuple[int, ...], expected: bool
) -> None:
    labels = np.arange(rows) % 2
    before, after = labels.copy(), labels.copy()
    before[list(wrong_before)] ^= 1
    after[list(wrong_after)] ^= 1
    assert loses_too_much(labels, before, after, 2, 0.005) is expected
    assert loses_too_much(labels, before, after, 2, 0.0) is (len(wrong_after) > len(wrong_before))


def test_scores_that_depend_on_the_batch_are_counted() -> None:
    texts = ["-0.1", "-0.002", "-0.00300000", "0.8"]  # with 11 characters the longest
    alone = BatchDependent().predict_logits(texts)
    found = batch_invariance(BatchDependent(), texts, alone)  # type: ignore[arg-type]
    moved = alone + np.array([0, 0.011], dtype=np.float32)
    assert found["label_flips"] == 2
    assert found["rows"] == 4
    assert found["largest_score_difference"] == pytest.approx(np.abs(softmax(alone) - softmax(moved)).max(), abs=1e-6)


def test_batches_mix_lengths() -> None:
    """Batches mix short and long texts: otherwise only the scores of long texts would change."""
    texts = ["0.0001"] * BATCH + ["-0.001" + "0" * 194] * BATCH
    found = batch_invariance(BatchDependent(), texts, BatchDependent().predict_logits(texts))  # type: ignore[arg-type]
    assert found["label_flips"] == BATCH


def test_a_batch_invariant_model_has_no_flips() -> None:
    class BatchInvariant(BatchDependent):
        def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
            return super().predict_logits(texts)

    texts = [f"{value:.3f}" for value in np.linspace(-1, 1, 150)]
    found = batch_invariance(BatchInvariant(), texts, BatchInvariant().predict_logits(texts))  # type: ignore[arg-type]
    assert (found["label_flips"], found["largest_score_difference"]) == (0, 0.0)

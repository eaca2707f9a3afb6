"""Timing uses enough samples, real text lengths, full batches and the model's own threshold."""

from collections.abc import Sequence

import numpy as np
import pytest

from exporters.loaders.command.timing import percentiles
from toolkit.latency.timing import (
    Latency,
    Throughput,
    fixed_order,
    label_indices,
    time_latency,
    time_throughput,
)


class Recorder:
    """A predictor that records the texts of each call."""

    labels: tuple[str, ...] = ("no", "yes")

    def __init__(self, threshold: float | None = 0.5, probability: float = 0.4) -> None:
        self.threshold, self.offsets, self.probability = threshold, None, probability
        self.calls: list[list[str]] = []

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return np.full((len(texts), 2), [1 - self.probability, self.probability], dtype=np.float32)


@pytest.mark.parametrize(
    ("count", "printed"),
    [(0, []), (19, []), (20, ["p50"]), (99, ["p50"]), (100, ["p50", "p90"]), (999, ["p50", "p90"])],
)
def test_percentiles_are_absent_without_enough_samples(count: int, printed: list[str]) -> None:
    assert list(percentiles([1.0] * count)) == printed


def test_percentiles_agree_with_numpy() -> None:
    samples = np.random.default_rng(0).exponential(size=1000).tolist()
    expected = dict(zip(("p50", "p90", "p99"), np.percentile(samples, [50, 90, 99]), strict=True))
    assert percentiles(samples) == pytest.approx(expected)


def test_the_fixed_order_is_a_reproducible_shuffle() -> None:
    texts = [f"text {i}" for i in range(50)]
    order = fixed_order(texts)
    assert sorted(order) == list(range(50)) != order
    assert [texts[i] for i in order] == [texts[::-1][i] for i in fixed_order(texts[::-1])]


def test_latency_predicts_each_text_once_and_one_at_a_time() -> None:
    texts = [f"text {i}" for i in range(30)]
    model = Recorder()
    samples = time_latency(model, texts, Latency(warmup=5))
    assert len(samples) == 30
    assert all(sample >= 0 for sample in samples)
    assert model.calls == [[text] for text in texts[25:] + texts]


def test_latency_stops_at_the_maximum_number_of_samples() -> None:
    model = Recorder()
    assert len(time_latency(model, ["a"] * 30, Latency(max_samples=7, warmup=2))) == 7
    assert len(model.calls) == 2 + 7


def test_latency_stops_when_the_time_budget_is_used_up() -> None:
    assert len(time_latency(Recorder(), ["a"] * 30, Latency(budget_s=0))) == 1


@pytest.mark.parametrize(("rows", "calls"), [(8, 1), (23, 2), (24, 3)])
def test_throughput_counts_full_batches_only(rows: int, calls: int) -> None:
    model = Recorder()
    rate = time_throughput(model, ["a"] * rows, Throughput(batch=8))
    assert rate is not None
    assert rate > 0
    assert [len(call) for call in model.calls] == [8] * (1 + calls)


def test_throughput_of_less_than_a_batch_is_none() -> None:
    assert time_throughput(Recorder(), ["a"] * 7, Throughput(batch=8)) is None


@pytest.mark.parametrize(("threshold", "label"), [(0.35, 1), (0.5, 0), (None, 0)])
def test_labels_use_the_threshold_of_the_model(threshold: float | None, label: int) -> None:
    assert label_indices(Recorder(threshold), ["a"]).tolist() == [label]

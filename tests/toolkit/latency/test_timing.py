"""Timing uses enough samples, real text lengths, full batches and the model's own threshold."""

from collections.abc import Sequence

import numpy as np
import pytest

from exporters.loaders.command.timing import percentiles
from toolkit.latency.timing import (
    Latency,
    Throughput,
    WarmUp,
    fixed_order,
    label_indices,
    time_latency,
    time_throughput,
    warm_up,
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
    [
        (0, []),
        (19, []),
        (20, ["p50"]),
        (63, ["p50"]),
        (64, ["p50", "p90"]),
        (661, ["p50", "p90"]),
        (662, ["p50", "p90", "p99"]),
    ],
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


def test_a_package_is_timed_by_what_its_users_call() -> None:
    class Package(Recorder):
        def predict(self, texts: Sequence[str]) -> list[tuple[str, float]]:
            self.calls.append(["predict", *texts])
            return [("no", 0.6)] * len(texts)

    model = Package()
    assert len(time_latency(model, ["a", "b"], Latency(warmup=0))) == 2
    assert time_throughput(model, ["a"] * 8, Throughput(batch=8))
    assert [call[0] for call in model.calls] == ["predict"] * 4


@pytest.mark.parametrize(("seconds", "passes"), [((3.0, 3.1, 9.0), 2), ((9.0, 5.0, 3.0), 3), ((1.0, 2.0, 2.0), 3)])
def test_warming_up_ends_when_the_time_is_stable_or_after_all_passes(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], passes: int
) -> None:
    clock = iter([reading for each in seconds for reading in (100.0, 100.0 + each)])
    monkeypatch.setattr("toolkit.latency.timing.time.perf_counter", lambda: next(clock))
    model = Recorder()
    warm_up(model, ["a", "b"], WarmUp(passes=3, stable=0.05))
    assert len(model.calls) == 2 * passes


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

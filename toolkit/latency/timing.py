"""What is measured, how long it may take, and which figures so many samples allow.

Imports numpy and nothing heavier: the measuring worker imports this, and its start and its memory are measured.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.evaluation.metrics import apply_threshold
from toolkit.evaluation.predictor import Predictor

TURN, TURN_WARMUP = 20, 5
"""Texts that a model answers before the next one has its turn, and how many of them it answers first, untimed."""
SAMPLES_NEEDED = {50: 20, 90: 100, 99: 1000}
"""A percentile is printed from so many samples on."""


@dataclass(frozen=True)
class Latency:
    """One text in, its label out, tokenizer included, at the text's own length; each text once."""

    max_samples: int = 1200
    """Texts that are timed at most."""
    budget_s: float = 60.0
    """After which no further text is timed."""
    warmup: int = 20
    """Texts before that, not timed; the last ones, so that the timed ones are new to every cache."""


@dataclass(frozen=True)
class Throughput:
    """Rows a second when texts come in batches, in the order in which they come."""

    batch: int
    """Texts in a call."""
    max_rows: int = 1024
    """Texts at most."""
    budget_s: float = 20.0
    """After which no further batch is started."""


@dataclass(frozen=True)
class ColdStart:
    """From the start of the process to the first label; model files are in the disk cache from the second start on."""

    starts: int = 3
    """Processes; the median is reported."""


def fixed_order(texts: Sequence[str]) -> list[int]:
    """Indices that shuffle `texts` in a way that only the texts decide: the same on any machine."""
    return sorted(range(len(texts)), key=lambda i: hashlib.sha256(texts[i].encode()).digest())


def label_indices(predictor: Predictor, texts: Sequence[str]) -> np.ndarray:
    """int (texts,): the label of each text, cut at the predictor's own threshold."""
    return apply_threshold(predictor.predict_proba(texts), predictor.threshold)


def time_latency(predictor: Predictor, texts: Sequence[str], how: Latency) -> list[float]:
    """Milliseconds of each timed text, in order."""
    for text in texts[len(texts) - min(how.warmup, len(texts)) :]:
        label_indices(predictor, [text])
    samples: list[float] = []
    stop = time.perf_counter() + how.budget_s
    for text in texts[: how.max_samples]:
        before = time.perf_counter_ns()
        label_indices(predictor, [text])
        samples.append((time.perf_counter_ns() - before) / 1e6)
        if time.perf_counter() > stop:
            break
    return samples


def times_in_turns(
    predictors: Sequence[Predictor], texts: Sequence[str], advance: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Milliseconds (texts, predictors), in turns of TURN texts, so that all meet the same noise.

    Not text by text: what runs alone has the processor's caches for itself.
    advance: called with the number of texts that all have answered since the last call.
    """
    times = np.zeros((len(texts), len(predictors)))
    for start in range(0, len(texts), TURN):
        turn = texts[start : start + TURN]
        for column, predictor in enumerate(predictors):
            times[start : start + TURN, column] = time_latency(
                predictor, turn, Latency(budget_s=np.inf, warmup=TURN_WARMUP)
            )
        advance(len(turn))
    return times


def time_throughput(predictor: Predictor, texts: Sequence[str], how: Throughput) -> float | None:
    """Rows a second over whole batches; None if there are fewer texts than one batch."""
    rows = min(len(texts), how.max_rows) // how.batch * how.batch
    if rows == 0:
        return None
    label_indices(predictor, texts[: how.batch])  # warm-up at this batch size
    start = time.perf_counter()
    done = 0
    while done < rows and time.perf_counter() - start < how.budget_s:
        label_indices(predictor, texts[done : done + how.batch])
        done += how.batch
    return done / (time.perf_counter() - start) if done else None


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """`p50`, `p90` and `p99`, each only where there are enough samples for it (SAMPLES_NEEDED)."""
    return {f"p{q}": float(np.percentile(samples, q)) for q, needed in SAMPLES_NEEDED.items() if len(samples) >= needed}

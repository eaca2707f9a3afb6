"""Measure latency and throughput within a time budget.

The measuring worker imports this module, and its start time and memory are measured. So it must not import anything
heavier than numpy.
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from toolkit.evaluation.predictor import Predictor, rule_of

TEXTS_PER_TURN, WARMUP_PER_TURN = 20, 5
"""Texts that a model predicts before it is the next model's turn, and untimed predictions at the start of a turn."""


@dataclass(frozen=True)
class Latency:
    """End-to-end latency (tokenization included) of single texts, unpadded, each text once."""

    max_samples: int = 1200
    """Maximum number of timed texts."""
    budget_s: float = 60.0
    """Time after which no further text is timed."""
    warmup: int = 20
    """Untimed texts at the start. They are the last ones, so that no cache has seen the timed texts."""


@dataclass(frozen=True)
class Throughput:
    """Rows per second for batches of texts in their given order."""

    batch: int
    """Texts per call."""
    max_rows: int = 1024
    """Maximum number of texts."""
    budget_s: float = 20.0
    """Time after which no further batch is started."""


@dataclass(frozen=True)
class WarmUp:
    """Untimed labels before the first timed one."""

    passes: int = 10
    """Maximum number of passes over the texts."""
    stable: float = 0.05
    """Relative difference between the times of two passes that ends it."""


def fixed_order(texts: Sequence[str]) -> list[int]:
    """Return indices that shuffle `texts` in an order that depends only on the texts, not on the machine."""
    return sorted(range(len(texts)), key=lambda i: hashlib.sha256(texts[i].encode()).digest())


def label_indices(predictor: Predictor, texts: Sequence[str], **how: int) -> np.ndarray:
    """Return the predicted label indices, int (texts,), at the predictor's own decision rule.

    how: the batch size of predictors that take one.
    """
    score: Callable[..., np.ndarray] = predictor.predict_proba
    return rule_of(predictor).predict(score(texts, **how))


def labeling(predictor: Predictor) -> Callable[[Sequence[str]], Any]:
    """Return the function that labels texts: `predict`, which users of a package call, else `label_indices`."""
    return getattr(predictor, "predict", None) or partial(label_indices, predictor)


def warm_up(predictor: Predictor, texts: Sequence[str], settings: WarmUp) -> None:
    """Label `texts`, untimed, again and again until the time of a pass is stable."""
    label, before = labeling(predictor), math.inf
    for _ in range(settings.passes):
        start = time.perf_counter()
        for text in texts:
            label([text])
        passed = time.perf_counter() - start
        if abs(passed / before - 1) < settings.stable:
            return
        before = passed


def time_latency(predictor: Predictor, texts: Sequence[str], settings: Latency) -> list[float]:
    """Return the milliseconds of each timed text, in order."""
    label = labeling(predictor)
    for text in texts[len(texts) - min(settings.warmup, len(texts)) :]:
        label([text])
    samples: list[float] = []
    stop = time.perf_counter() + settings.budget_s
    for text in texts[: settings.max_samples]:
        before = time.perf_counter_ns()
        label([text])
        samples.append((time.perf_counter_ns() - before) / 1e6)
        if time.perf_counter() > stop:
            break
    return samples


def time_encoding(predictor: Predictor, texts: Sequence[str]) -> float | None:
    """Return the mean milliseconds for the token ids of a text, normalization included.

    None if the predictor does not make them apart: compiled code never does, and a cascade has two tokenizers.
    """
    encode = getattr(predictor, "encode", None)
    if encode is None or getattr(predictor, "compiled", False) or hasattr(type(predictor), "transformer"):
        return None
    start = time.perf_counter_ns()
    for text in texts:
        encode([text])
    return (time.perf_counter_ns() - start) / 1e6 / len(texts)


def times_in_turns(
    predictors: Sequence[Predictor], texts: Sequence[str], advance: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Time predictors in turns of TEXTS_PER_TURN texts, so that all are exposed to the same noise.

    Alternating after every text would be unrealistic: each predictor would find the caches filled by the others.
    advance: called after each turn with the number of texts that all predictors have processed.
    Returns: milliseconds, (texts, predictors).
    """
    times = np.zeros((len(texts), len(predictors)))
    for start in range(0, len(texts), TEXTS_PER_TURN):
        turn = texts[start : start + TEXTS_PER_TURN]
        for column, predictor in enumerate(predictors):
            times[start : start + TEXTS_PER_TURN, column] = time_latency(
                predictor, turn, Latency(budget_s=np.inf, warmup=WARMUP_PER_TURN)
            )
        advance(len(turn))
    return times


def time_throughput(predictor: Predictor, texts: Sequence[str], settings: Throughput) -> float | None:
    """Return rows per second over full batches, or None if there are fewer texts than one batch."""
    rows = min(len(texts), settings.max_rows) // settings.batch * settings.batch
    if rows == 0:
        return None
    label = labeling(predictor)
    label(texts[: settings.batch])  # warm-up at this batch size
    start = time.perf_counter()
    done = 0
    while done < rows and time.perf_counter() - start < settings.budget_s:
        label(texts[done : done + settings.batch])
        done += settings.batch
    return done / (time.perf_counter() - start) if done else None

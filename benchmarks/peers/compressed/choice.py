"""Which of several compressed teachers a careful user would take: the fastest that is as accurate as the teacher.

This is what the quality gate of the toolkit does, with the same limit: on validation rows, at most half a point of
macro-F1 lost. If none keeps it, the most accurate is taken.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Label, Missing, Rows, score

MAX_DROP = 0.005
TIMED, WARM_UP = 60, 10
"""Validation texts that are timed, and texts before."""


@dataclass(frozen=True)
class Trial:
    """One setting of a peer, measured on validation rows."""

    settings: dict[str, Any]
    folder: Path
    macro_f1: float
    ms: float
    """Median of a text."""


def chosen(
    rows: Rows,
    settings: Sequence[dict[str, Any]],
    make: Callable[[dict[str, Any], Path], None],
    label: Callable[[Path], Label],
    teacher: float,
    folder: Path,
) -> Trial:
    """Make and measure every setting, and return the chosen one, whose files are then in FOLDER/chosen.

    make: settings, folder -> None; writes the model. label: folder -> its function. teacher: its macro-F1.
    A setting that fails is left out. Raises: Missing with the last reason if all fail.
    """
    trials, reason = [], ""
    for number, each in enumerate(settings):
        place = folder / f"trial-{number}"
        place.mkdir()
        try:
            make(each, place)
            trials.append(_measured(rows, each, place, label(place)))
        except Exception as error:  # whatever the library raises: the peer goes on with its other settings
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not trials:
        raise Missing(reason)
    best = pick(trials, teacher)
    best.folder.rename(folder / "chosen")
    for other in folder.glob("trial-*"):
        shutil.rmtree(other)
    return best


def pick(trials: Sequence[Trial], teacher: float) -> Trial:
    """Return the fastest trial whose macro-F1 is at most MAX_DROP below the teacher's, else the most accurate."""
    close = [each for each in trials if each.macro_f1 >= teacher - MAX_DROP]
    return min(close, key=lambda each: each.ms) if close else max(trials, key=lambda each: each.macro_f1)


def facts(trial: Trial, model: str, *more: str) -> dict[str, Any]:
    """Return what `train` of a peer returns. more: other models with the same files."""
    return {"settings": trial.settings, "validation": dict.fromkeys((model, *more), trial.macro_f1)}


def _measured(rows: Rows, settings: dict[str, Any], folder: Path, label: Label) -> Trial:
    samples = []
    for text in rows.validation_texts[:WARM_UP] + rows.validation_texts[:TIMED]:
        before = time.perf_counter()
        label([text])
        samples.append(1000 * (time.perf_counter() - before))
    ms = statistics.median(samples[WARM_UP:] or samples)
    return Trial(settings, folder, score(rows, label), ms)

"""Label one batch of a file: what each process does."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow

from exporters.loaders.command.label_file import (
    ANSWER,
    BATCH,
    LABEL,
    PROBABILITY,
    inert,
    is_blank,
    safe_batch_size,
)
from exporters.registry import LoadedArtifact
from toolkit.data.batches.layout import Layout, survey
from toolkit.data.batches.reading import texts_of
from toolkit.data.batches.writing import DELIMITED, JSON, PARQUET, Chunk, chunk_of
from toolkit.evaluation.reliability.scope import COLUMN
from toolkit.package import predict
from toolkit.utils.errors import InputError
from toolkit.workflows.scoring.flags import Flags

SUFFIXES = (*DELIMITED, *JSON, PARQUET)
"""Kinds of labeled files."""


@dataclass(frozen=True)
class TableOptions:
    """How the files are read; None recognizes it."""

    text_column: str | None = None
    encoding: str | None = None
    separator: str | None = None


@dataclass(frozen=True)
class Task:
    """A batch to label, and how its rows are written."""

    batch: pyarrow.RecordBatch = field(repr=False)
    layout: Layout
    suffix: str


@dataclass(frozen=True)
class Labeled:
    """The rows of a batch as they are written."""

    chunk: Chunk = field(repr=False)
    rows: int
    blank: int
    """Rows without text, which have no label."""


class Labeling(Protocol):
    """Something that labels batches: this process, or a pool of processes."""

    def label(self, tasks: Iterable[tuple[int, Task | InputError]]) -> Iterator[tuple[int, Labeled | InputError]]:
        """Yield the results in the order of the tasks, each with its number; an error is passed on."""
        ...

    def ahead(self, find: Callable[..., Layout], *arguments: Any) -> Callable[[], Layout]:
        """Return a function that waits for `find(*arguments)`, which another process may already be doing."""
        ...


class InThisProcess:
    """Label batches one after the other."""

    def __init__(self, model: LoadedArtifact, probe: Sequence[str], flags: Flags | None = None) -> None:
        """probe: the first texts, with which it is found out whether the model scores a batch as it scores texts."""
        self.model, self.flags = model, flags or Flags()
        self.batch_size = safe_batch_size(model, list(probe)[:BATCH])

    def label(self, tasks: Iterable[tuple[int, Task | InputError]]) -> Iterator[tuple[int, Labeled | InputError]]:
        """Yield the result of each task before the next one is read."""
        for number, task in tasks:
            yield number, task if isinstance(task, InputError) else self.labeled(task)

    def ahead(self, find: Callable[..., Layout], *arguments: Any) -> Callable[[], Layout]:
        """Return a function that does it when it is called."""
        return lambda: find(*arguments)

    def labeled(self, task: Task) -> Labeled:
        """Return the rows of one batch with label and probability, both empty for a row without text."""
        texts = texts_of(task.batch, task.layout)
        filled = [row for row, text in enumerate(texts) if not is_blank(text)]
        labels: list[str | None] = [None] * len(texts)
        probabilities: list[float | None] = [None] * len(texts)
        scored = [texts[row] for row in filled]
        found = predict(self.model, scored, self.batch_size) if filled else []
        for row, (label, probability) in zip(filled, found, strict=True):
            labels[row], probabilities[row] = label, round(probability, 6)
        added = {
            LABEL: pyarrow.array(labels, pyarrow.string()),
            PROBABILITY: pyarrow.array(probabilities, pyarrow.float64()),
        }
        if ANSWER in self.flags.columns:
            answers = [
                label if label is None or probability is None else self.flags.answer(label, probability)
                for label, probability in zip(labels, probabilities, strict=True)
            ]
            added[ANSWER] = pyarrow.array(answers, pyarrow.string())
        if COLUMN in self.flags.columns:
            reasons: list[str | None] = [None] * len(texts)
            for row, reason in zip(filled, self.flags.reasons(scored), strict=True):
                reasons[row] = reason or None
            added[COLUMN] = pyarrow.array(reasons, pyarrow.string())
        chunk = chunk_of(task.batch, task.layout, task.suffix, added, inert)
        return Labeled(chunk, len(texts), len(texts) - len(filled))


def layout_to_label(source: Path, out: Path, options: TableOptions) -> Layout:
    """Return the layout of a file that can be labeled. Raises: InputError as `survey`, or if it is already labeled."""
    suffix = out.suffix.lower()
    parquet_out = out if suffix == PARQUET else None
    layout = survey(source, options.text_column, options.encoding, options.separator, parquet_out)
    existing = [name for name in (LABEL, PROBABILITY, ANSWER, COLUMN) if name in layout.columns]
    if existing:
        raise InputError(f"{source}: already has a column {existing[0]!r}; rename it")
    return layout

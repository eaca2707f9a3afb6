"""Which texts a cascade defers to its transformer, and how the logits of both models are added."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

TRANSFORMER = "transformer"
"""Subfolder of the transformer."""
PROGRAM = "how_to_load.py"
OpenModel = Callable[[Path, "int | None"], Any]
"""A folder and a number of threads -> the model in it."""


class Routing:
    """The settings of a cascade in config.json, and its transformer, which is loaded when it is first needed.

    labels: number of labels. open_transformer: loads the transformer.
    """

    def __init__(self, folder: Path, threads: int | None, labels: int, open_transformer: OpenModel) -> None:
        self.folder, self.threads, self.open_transformer = folder, threads, open_transformer
        stated = json.loads((folder / "config.json").read_text("utf-8"))["cascade"]
        self.margin: float = stated["margin"]
        self.offsets: list[float] = [*stated["offsets"]]
        self.weights: tuple[float, float] = (stated["ngram_weight"], stated["transformer_weight"])
        numbers = (self.margin, *self.offsets, *self.weights)
        finite = all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        if len(self.offsets) != labels or not finite:
            raise ValueError("config.json: cascade must have finite numbers, and one offset per label")

    @cached_property
    def transformer(self) -> Any:
        """The transformer. Raises: ValueError if it does not load."""
        return self.open_transformer(self.folder / TRANSFORMER, self.threads)

    def defers(self, logits: Sequence[float]) -> bool:
        """Return whether the two best labels of the n-gram model are less than the margin apart."""
        *_, second, best = sorted(map(float.__add__, logits, map(float, self.offsets)))
        return best - second < self.margin

    def combined(self, texts: Sequence[str], rows: list[list[float]], batch_size: int) -> list[list[float]]:
        """Return the logits of the cascade for each text. rows: the logits of the n-gram model for each."""
        deferred = [i for i, row in enumerate(rows) if self.defers(row)]
        if not deferred:
            return rows
        found, rows = self.transformer.predict_logits([texts[i] for i in deferred], batch_size), [*rows]
        first, second = self.weights
        for i, others in zip(deferred, found.tolist()):
            rows[i] = [first * own + second * other for own, other in zip(rows[i], others)]
        return rows


def by_program(folder: Path, threads: int | None) -> Any:
    """Return the model in `folder`, loaded by the how_to_load.py in it.

    It is compiled from its source: an old or planted file in __pycache__ is not run.
    Raises: ValueError if it does not load, ImportError if its runtime is not installed.
    """
    file = folder / PROGRAM
    module = ModuleType(folder.name)
    module.__file__ = str(file)
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
        return module.load(folder, threads, verify=False)
    except ImportError:
        raise
    except Exception as error:  # the program may be damaged in any way
        raise ValueError(f"{file}: does not load: {' '.join(str(error).split())}") from error


def parts_of(graph: str) -> tuple[str, ...]:
    """Return the files of the transformer that must be in the manifest. graph: path of its graph in its folder."""
    return tuple(f"{TRANSFORMER}/{name}" for name in (graph, "config.json", "tokenizer.json", PROGRAM))

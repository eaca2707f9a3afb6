"""The model is a cascade: a linear classifier on character n-grams answers most texts. It defers texts whose two best
labels are close to a transformer, and the logits of both are added. The transformer is loaded when it is first needed.

Requires ONNX Runtime.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from exporters.loaders.base.files import open_package
from exporters.loaders.base.script import main
from exporters.loaders.common import Model, is_finite
from exporters.loaders.onnx_runtime.characters import characters, ngram_network
from exporters.loaders.onnx_runtime.graph_file import graph_file
from exporters.loaders.onnx_runtime.transformer import transformer_network
from exporters.loaders.subwords import subwords

TRANSFORMER = "transformer"
"""Subfolder of the transformer."""


class Cascade(Model):
    """A classifier of two parts; see the top of this file."""

    def __init__(self, folder: Path, threads: int | None) -> None:
        super().__init__(folder, characters, ngram_network(folder / graph_file(folder), threads))
        self.folder, self.threads = folder, threads
        routing = json.loads((folder / "config.json").read_text("utf-8"))["cascade"]
        self.margin: float = routing["margin"]
        self.rule_offsets = [float(offset) for offset in routing["offsets"]]
        self.weights: tuple[float, float] = (routing["ngram_weight"], routing["transformer_weight"])
        numbers = (self.margin, *self.rule_offsets, *self.weights)
        if len(self.rule_offsets) != len(self.labels) or not all(map(is_finite, numbers)):
            raise ValueError("config.json: cascade must have finite numbers, and one offset per label")

    @cached_property
    def transformer(self) -> Model:
        """The transformer. Raises: ValueError if it does not load."""

        def build(root: Path) -> Model:
            return Model(root, subwords, transformer_network(root / graph_file(root), self.threads))

        return open_package(self.folder / TRANSFORMER, (), False, build)

    def deferred(self, logits: np.ndarray) -> list[int]:
        """Return the rows of n-gram logits (texts, labels) whose two best labels are less than the margin apart."""
        if len(logits) == 1:  # for one row, plain Python is faster than numpy
            *_, second, best = sorted(map(float.__add__, logits[0].tolist(), self.rule_offsets))
            return [0] if best - second < self.margin else []
        scores = np.sort(logits.astype(np.float64) + self.rule_offsets, axis=1)
        return np.flatnonzero(scores[:, -1] - scores[:, -2] < self.margin).tolist()

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Return logits, float32 (texts, labels); texts are batched by length. See `predict_proba` for errors."""
        logits = super().predict_logits(texts, batch_size)
        deferred = self.deferred(logits)
        if deferred:
            found = self.transformer.predict_logits([texts[i] for i in deferred], batch_size)
            logits[deferred] = self.weights[0] * logits[deferred] + self.weights[1] * found
        return logits


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None, verify: bool = True) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: maximum number of threads; None uses the default of the runtime.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    Raises: ValueError if a file is not as shipped or the model does not load.
    """
    folder = Path(__file__).parent if folder is None else folder
    graphs = (graph_file(Path(folder)), f"{TRANSFORMER}/{graph_file(Path(folder) / TRANSFORMER)}")
    parts = (*graphs, f"{TRANSFORMER}/config.json", f"{TRANSFORMER}/tokenizer.json")
    return open_package(folder, parts, verify, lambda root: Cascade(root, threads))


if __name__ == "__main__":
    main(load)

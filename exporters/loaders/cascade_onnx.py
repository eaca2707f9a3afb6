"""The model is a cascade: a linear classifier on character n-grams answers most texts. It defers texts whose two best
labels are close to a transformer, and the logits of both are added. The transformer is loaded when it is first needed.

Requires ONNX Runtime.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporters.loaders.base.files import open_package
from exporters.loaders.base.routing import TRANSFORMER, OpenModel, Routing, by_program, parts_of
from exporters.loaders.base.script import main
from exporters.loaders.common import Model
from exporters.loaders.onnx_runtime.characters import characters, ngram_network
from exporters.loaders.onnx_runtime.graph_file import graph_file


class Cascade(Model):
    """A classifier of two models; see the top of this file."""

    routing: Routing

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Return logits, float32 (texts, labels); texts are batched by length. See `predict_proba` for errors."""
        logits = super().predict_logits(texts, batch_size)
        rows = self.routing.combined(texts, logits.tolist(), batch_size)
        return np.array(rows, dtype=np.float32).reshape(logits.shape)


def open_cascade(
    folder: str | os.PathLike[str], threads: int | None, verify: bool, open_transformer: OpenModel
) -> Cascade:
    """Return the cascade in `folder`. See `load`; `open_transformer` loads the transformer in its subfolder."""

    def build(root: Path) -> Cascade:
        model = Cascade(root, characters, ngram_network(root / graph_file(root), threads))
        model.routing = Routing(root, threads, len(model.labels), open_transformer)
        return model

    parts = (graph_file(Path(folder)), *parts_of(graph_file(Path(folder) / TRANSFORMER)))
    return open_package(folder, parts, verify, build)


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None, verify: bool = True) -> Cascade:
    """Return the model in `folder`, by default the folder of this file.

    threads: maximum number of threads; None uses the default of the runtime.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    Raises: ValueError if a file is not as shipped or the model does not load.
    """
    return open_cascade(Path(__file__).parent if folder is None else folder, threads, verify, by_program)


if __name__ == "__main__":
    main(load)

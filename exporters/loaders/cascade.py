"""The model is a cascade: a linear classifier on character n-grams answers most texts. It defers texts whose two best
labels are close to a transformer, and the logits of both are added.

The n-gram model needs no runtime. The transformer, and what it requires, is loaded when it is first needed.
"""

from __future__ import annotations

import os
from pathlib import Path

from exporters.loaders.base.files import open_package
from exporters.loaders.base.routing import TRANSFORMER, OpenModel, Routing, by_program, parts_of
from exporters.loaders.base.script import main
from exporters.loaders.model_bin.arrays import HEAD_FILE, ArrayModel, model_bin
from exporters.loaders.model_bin.library import C_SOURCES, scorer
from exporters.loaders.model_bin.model import refuse_other_rule
from exporters.loaders.onnx_runtime.graph_file import GRAPH_FILE, graph_file


class Cascade(ArrayModel):
    """A classifier of two models; see the top of this file."""

    routing: Routing

    def scored(self, texts: list[str], batch_size: int) -> list[list[float]]:
        """Return the logits of each text."""
        return self.routing.combined(texts, super().scored(texts, batch_size), batch_size)


def open_cascade(
    folder: str | os.PathLike[str],
    threads: int | None,
    verify: bool,
    compile: bool | None,
    open_transformer: OpenModel,
) -> Cascade:
    """Return the cascade in `folder`. See `load`; `open_transformer` loads the transformer in its subfolder."""

    def build(root: Path) -> Cascade:
        data = model_bin(root)
        model = Cascade(data, scorer(root / C_SOURCES[0], data, compile))
        refuse_other_rule(model, root)
        model.routing = Routing(root, threads, len(model.labels), open_transformer)
        return model

    parts = (HEAD_FILE, GRAPH_FILE, *C_SOURCES, *parts_of(graph_file(Path(folder) / TRANSFORMER)))
    return open_package(folder, parts, verify, build)


def load(
    folder: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    verify: bool = True,
    compile: bool | None = None,
) -> Cascade:
    """Return the model in `folder`, by default the folder of this file.

    threads: maximum number of threads of the transformer; None uses the default of its runtime.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    compile: run model.c of the package instead of Python: the same scores, many times faster. It is compiled once, into
        ~/.cache/hbt. None does so if there is a C compiler, False never, True raises ValueError if there is none.
    Raises: ValueError if a file is not as shipped or the model does not load, or nothing compiles it.
    """
    return open_cascade(Path(__file__).parent if folder is None else folder, threads, verify, compile, by_program)


if __name__ == "__main__":
    main(load)

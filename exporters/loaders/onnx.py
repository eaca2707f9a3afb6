"""The model is a transformer, run by ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path

from exporters.loaders.base.files import open_package
from exporters.loaders.base.script import main
from exporters.loaders.base.subwords import subwords
from exporters.loaders.common import Model
from exporters.loaders.onnx_runtime.graph_file import graph_file
from exporters.loaders.onnx_runtime.transformer import transformer_network


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None, verify: bool = True) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: maximum number of threads; None uses the default of the runtime.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    Raises: ValueError if a file is not as shipped or the model does not load.
    """
    folder = Path(__file__).parent if folder is None else folder

    def build(root: Path) -> Model:
        return Model(root, subwords, transformer_network(root / graph_file(root), threads))

    return open_package(folder, (graph_file(Path(folder)),), verify, build)


if __name__ == "__main__":
    main(load)

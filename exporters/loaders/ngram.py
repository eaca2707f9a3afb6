"""The model is a linear classifier on hashed character n-grams. model.c scores the texts where a C compiler is found;
else Python scores single texts, and numpy batches: the same scores, slower. It needs no other runtime: onnx/model.onnx
is the same model for those who want it, and the table is read from that file.
"""

from __future__ import annotations

import os
from pathlib import Path

from exporters.loaders.base.files import open_package
from exporters.loaders.base.script import main
from exporters.loaders.model_bin.arrays import HEAD_FILE, ArrayModel, model_bin
from exporters.loaders.model_bin.library import C_SOURCES, scorer
from exporters.loaders.model_bin.model import refuse_other_rule
from exporters.loaders.onnx_runtime.graph_file import GRAPH_FILE


def load(
    folder: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    verify: bool = True,
    compile: bool | None = None,
) -> ArrayModel:
    """Return the model in `folder`, by default the folder of this file.

    threads: has no effect; every text is scored on one thread.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    compile: run model.c of the package instead of Python: the same scores, many times faster. It is compiled once, into
        ~/.cache/hbt. None does so if there is a C compiler, False never, True raises ValueError if there is none.
    Raises: ValueError if a file is not as shipped or the model does not load, or nothing compiles it.
    """
    folder = Path(__file__).parent if folder is None else folder

    def build(root: Path) -> ArrayModel:
        data = model_bin(root)
        model = ArrayModel(data, scorer(root / C_SOURCES[0], data, compile))
        refuse_other_rule(model, root)
        return model

    return open_package(folder, (HEAD_FILE, GRAPH_FILE, *C_SOURCES), verify, build)


if __name__ == "__main__":
    main(load)

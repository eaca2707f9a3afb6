"""The model is a linear classifier on hashed character n-grams in model.bin. model.c scores the texts where a C
compiler is found, else Python: the same scores, slower.
"""

from __future__ import annotations

import os
from pathlib import Path

from exporters.loaders.base.files import open_package
from exporters.loaders.base.script import main
from exporters.loaders.model_bin.library import C_SOURCES, scorer
from exporters.loaders.model_bin.model import Model


def load(
    folder: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    verify: bool = True,
    compile: bool | None = None,
) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: has no effect; every text is scored on one thread.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    compile: run model.c of the package instead of Python: the same scores, many times faster. It is compiled once, into
        ~/.cache/hbt. None does so if there is a C compiler, False never, True raises ValueError if there is none.
    Raises: ValueError if a file is not as shipped or the model does not load, or nothing compiles it.
    """
    folder = Path(__file__).parent if folder is None else folder

    def build(root: Path) -> Model:
        data = (root / "model.bin").read_bytes()
        return Model(data, scorer(root / C_SOURCES[0], data, compile))

    return open_package(folder, ("model.bin", *C_SOURCES), verify, build)


if __name__ == "__main__":
    main(load)

"""The model is a linear classifier on hashed character n-grams in model.bin. Needs nothing but Python; with
`load(compile=True)` it is run by model.c, which needs a C compiler.
"""

from __future__ import annotations

import os
from pathlib import Path

from exporters.loaders.base.files import open_package
from exporters.loaders.base.script import main
from exporters.loaders.model_bin.library import C_SOURCES, compiled, scored_by
from exporters.loaders.model_bin.model import Model


def load(
    folder: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    verify: bool = True,
    compile: bool = False,
) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: has no effect; every text is scored on one thread.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    compile: compile model.c of the package with the C compiler of this machine, into a temporary folder, and run that
        instead of Python: the same scores, many times faster.
    Raises: ValueError if a file is not as shipped or the model does not load, or nothing compiles it.
    """
    folder = Path(__file__).parent if folder is None else folder

    def build(root: Path) -> Model:
        data = (root / "model.bin").read_bytes()
        return Model(data, scored_by(compiled(root / C_SOURCES[0]), data) if compile else None)

    return open_package(folder, ("model.bin", *C_SOURCES), verify, build)


if __name__ == "__main__":
    main(load)

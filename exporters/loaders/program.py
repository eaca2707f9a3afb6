"""The model is a linear classifier on hashed character n-grams in model.bin. Needs nothing but Python."""

from __future__ import annotations

import os
from pathlib import Path

from exporters.loaders.base.files import open_package
from exporters.loaders.base.script import main
from exporters.loaders.model_bin.model import Model


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None, verify: bool = True) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: has no effect; every text is scored on one thread.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    Raises: ValueError if a file is not as shipped or the model does not load.
    """
    folder = Path(__file__).parent if folder is None else folder
    return open_package(folder, ("model.bin",), verify, lambda root: Model((root / "model.bin").read_bytes()))


if __name__ == "__main__":
    main(load)

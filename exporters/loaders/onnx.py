"""The model is a transformer, run by ONNX Runtime."""

import os
from pathlib import Path

import numpy as np

from exporters.loaders.common import Model, Network, main, open_package
from exporters.loaders.onnx_session import open_session
from exporters.loaders.subwords import subwords


def transformer(file: Path, threads: int | None) -> Network:
    """Return the network in `file`."""
    session = open_session(file, threads)
    masked = "attention_mask" in {entry.name for entry in session.get_inputs()}

    def run(ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        feed = {"input_ids": ids}
        if masked:
            feed["attention_mask"] = np.ones_like(ids) if mask is None else mask
        return session.run(["logits"], feed)[0]

    return run


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None, verify: bool = True) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: maximum number of threads; None uses the default of the runtime.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    Raises: ValueError if a file is not as shipped or the model does not load.
    """
    folder = Path(__file__).parent if folder is None else folder
    return open_package(
        folder, ("model.onnx",), verify, lambda root: Model(root, subwords, transformer(root / "model.onnx", threads))
    )


if __name__ == "__main__":
    main(load)

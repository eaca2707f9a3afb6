"""The model is a transformer, run by ONNX Runtime."""

import os
from pathlib import Path

import numpy as np

from exporters.loaders.common import Model, Network, main
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


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: maximum number of threads; None uses the default of the runtime.
    """
    folder = Path(__file__).parent if folder is None else Path(folder)
    return Model(folder, subwords, transformer(folder / "model.onnx", threads))


if __name__ == "__main__":
    main(load)

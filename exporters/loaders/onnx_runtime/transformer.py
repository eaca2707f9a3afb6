"""Run the ONNX graph of a transformer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exporters.loaders.common import Network
from exporters.loaders.onnx_runtime.session import open_session


def transformer_network(file: Path, threads: int | None) -> Network:
    """Return the network in `file`."""
    session = open_session(file, threads)
    masked = "attention_mask" in {entry.name for entry in session.get_inputs()}

    def run(ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        feed = {"input_ids": ids}
        if masked:
            feed["attention_mask"] = np.ones_like(ids) if mask is None else mask
        return session.run(["logits"], feed)[0]

    return run

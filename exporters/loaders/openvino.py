"""The model is a transformer, run by OpenVINO."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from exporters.loaders.base.files import open_package
from exporters.loaders.base.script import main
from exporters.loaders.base.subwords import subwords
from exporters.loaders.common import Model, Network


def transformer(file: Path, threads: int | None) -> Network:
    """Return the network in `file`."""
    # Importing openvino sends telemetry and stores an id in the home folder, unless openvino_telemetry is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    # bf16, the default on processors that support it, would give different scores than on other processors.
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    request = openvino.Core().compile_model(str(file), "CPU", options).create_infer_request()
    lock = Lock()  # a request has only one set of tensors

    def run(ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        attention = np.ones_like(ids) if mask is None else mask
        with lock:
            # Shared tensors: the copies and lookups of infer(dict) are noticeable for a single text.
            request.set_tensor("input_ids", openvino.Tensor(ids, shared_memory=True))
            request.set_tensor("attention_mask", openvino.Tensor(attention, shared_memory=True))
            request.infer()
            return request.get_tensor("logits").data.copy()

    return run


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None, verify: bool = True) -> Model:
    """Return the model in `folder`, by default the folder of this file.

    threads: maximum number of threads; None uses the default of the runtime.
    verify: check all files against manifest.json first. This took 1.3 ms for 0.6 MB and 0.7 s for 200 MB.
    Raises: ValueError if a file is not as shipped or the model does not load.
    """
    folder = Path(__file__).parent if folder is None else folder
    return open_package(
        folder,
        ("model.xml", "model.bin"),
        verify,
        lambda root: Model(root, subwords, transformer(root / "model.xml", threads)),
    )


if __name__ == "__main__":
    main(load)

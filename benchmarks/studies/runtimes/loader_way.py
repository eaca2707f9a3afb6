"""Score texts with how_to_load.py, in a Python that has only the requirements of the package.

    python loader_way.py PACKAGE TEXTS.json OUT.json [single|python|batch|onnxruntime]

single: one text a call, as how_to_load.py runs by default. python: the same with `load(compile=False)`. batch: BATCH
texts a call with `load(compile=False)`; each text takes its share. onnxruntime: not how_to_load.py but tokenizer.json
and onnx/model.onnx, one text a call.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

BATCH = 32


class Graph:
    """The ONNX file of a package and its tokenizer."""

    def __init__(self, package: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.tokenizer = Tokenizer.from_file(str(package / "tokenizer.json"))
        self.session = onnxruntime.InferenceSession(str(package / "onnx" / "model.onnx"), options)
        self.masked = "attention_mask" in {entry.name for entry in self.session.get_inputs()}

    def predict_proba(self, texts: list[str], batch_size: int) -> list[list[float]]:
        return [self.probabilities(text) for text in texts]

    def probabilities(self, text: str) -> list[float]:
        import numpy as np

        ids = np.array([self.tokenizer.encode(text).ids], dtype=np.int64)
        feed = {"input_ids": ids, **({"attention_mask": np.ones_like(ids)} if self.masked else {})}
        logits = self.session.run(["logits"], feed)[0][0].astype(np.float64)
        found = np.exp(logits - logits.max())
        return (found / found.sum()).tolist()


def opened(package: Path, mode: str) -> Any:
    """Return the model of a package."""
    if mode == "onnxruntime":
        return Graph(package)
    load = runpy.run_path(str(package / "how_to_load.py"))["load"]
    return load(package, threads=1) if mode == "single" else load(package, threads=1, compile=False)


def peak_mib() -> float | None:
    """Return the peak resident memory of this process; None where Linux does not tell it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


def main() -> None:
    package, texts_file, out = map(Path, sys.argv[1:4])
    mode = sys.argv[4] if sys.argv[4:] else "single"
    texts = json.loads(texts_file.read_text("utf-8"))
    model = opened(package, mode)
    model.predict_proba(texts[:1], 1)
    first, peak, size = time.time(), peak_mib(), BATCH if mode == "batch" else 1
    probabilities, ms = [], []
    for at in range(0, len(texts), size):
        given = texts[at : at + size]
        start = time.perf_counter()
        found = model.predict_proba(given, size)
        ms += [1000 * (time.perf_counter() - start) / len(given)] * len(given)
        probabilities += [[float(value) for value in row] for row in found]
    version = f"Python {sys.version.split()[0]}"
    record = {"version": version, "first": first, "probabilities": probabilities, "ms": ms, "peak_mib": peak}
    out.write_text(json.dumps(record), "utf-8")


if __name__ == "__main__":
    main()

"""Open an ONNX graph with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def open_session(file: Path, threads: int | None) -> onnxruntime.InferenceSession:
    """Return an inference session for the graph in `file` on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    # The fallback would print a broken file's error on stdout.
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"], enable_fallback=0)

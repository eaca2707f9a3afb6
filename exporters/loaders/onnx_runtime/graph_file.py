"""Where the ONNX graph of a package is."""

from __future__ import annotations

from pathlib import Path

GRAPH_FILE = "onnx/model.onnx"
"""Where the libraries of Hugging Face, in Python and in JavaScript, look for it."""


def graph_file(folder: Path) -> str:
    """Return the path of the graph in a package; in packages before 0.2, it is at the top."""
    before = "model.onnx"
    return before if (folder / before).exists() and not (folder / GRAPH_FILE).exists() else GRAPH_FILE

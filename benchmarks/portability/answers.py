"""Answer texts with the loaders of packages, in any Python that has what they require.

Runs as a script under emulation, without hbt: reads one JSON object `{"packages": [[folder, runtime, [text, …]], …]}`
from stdin, and prints one line of JSON for each package.
"""

import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def answer(folder: str, runtime: str, texts: list[str]) -> dict[str, Any]:
    """Return what how_to_load.py of a package answers: logits, probabilities and labels of each text by itself."""
    spec = importlib.util.spec_from_file_location("how_to_load", Path(folder) / "how_to_load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.load(threads=1)
    logits = model.predict_logits(texts)
    model.predict_logits = lambda *_: logits  # an emulated network is slow: run it once for all three
    return {
        "runtime": runtime if runtime == "none" else f"{runtime} {version(runtime)}",
        "logits": rows(logits),
        "probabilities": rows(model.predict_proba(texts)),
        "labels": [label for label, _ in model.predict(texts)],
    }


def rows(scores: Any) -> list[list[float]]:
    """Return scores (texts, labels), an array or lists, as lists."""
    return [[float(score) for score in row] for row in scores]


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # a package with a __pycache__ no longer verifies
    for package in json.load(sys.stdin)["packages"]:
        print(json.dumps(answer(*package)), flush=True)

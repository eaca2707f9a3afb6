"""The same texts through every way to run a package: labels, scores and latency beside each other.

    mkdir js && (cd js && npm install --ignore-scripts @huggingface/transformers onnxruntime-web puppeteer-core)
    python -m benchmarks.studies.runtimes PACKAGE FILE.csv --modules js/node_modules --optimum-python PYTHON

Ways: how_to_load.py, of an n-gram student also without its C code, alone and in batches; ONNX Runtime with tokenizers;
optimum with the pipeline of transformers (in a Python that has them: `make test-compatibility` sets one up);
transformers.js in Node and in headless Chromium; onnxruntime-web in Chromium; `mlflow models serve`, one request a
text; the packages of the same student for other targets that --also names. Each runs in its own process on one thread,
one after the other. The texts are the first of FILE in a fixed random order. Memory is the peak of the process until
its first label.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.loaders.model_bin.arrays import HEAD_FILE
from toolkit.data.corpus import TEXT_COLUMNS, find_column, text_values
from toolkit.data.tables import read_table
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.latency.timing import fixed_order
from toolkit.manifest import read_manifest
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError
from toolkit.utils.files import write_lines

HERE = Path(__file__).parent
TIMEOUT_S = 600


@dataclass(frozen=True)
class Answers:
    """What one way answered."""

    way: str
    version: str
    probabilities: np.ndarray
    """float64 (texts, labels)."""
    ms: list[float]
    """Milliseconds of each text."""
    first_label_s: float
    """From the start of the process, or of the server, to the first label; reads of files are warm."""
    peak_mib: float | None
    """Peak resident memory of the process at its first label; None where it is not known."""


def main() -> None:
    given = _arguments()
    texts = texts_of(given.file, given.rows)
    config = json.loads((given.package / "config.json").read_text("utf-8"))
    rule = DecisionRule(config["threshold"], None if config["offsets"] is None else tuple(config["offsets"]))
    found = []
    with tempfile.TemporaryDirectory(prefix="hbt-runtimes-") as folder:
        for way, command in commands(given, config["model_type"]).items():
            say(way)
            found.append(run(way, command, given.package.resolve(), texts, Path(folder)))
    lines = compared(found, rule)
    write_lines(lines, given.out)
    print_table(lines, f"{given.package.name}: {len(texts)} rows of {given.file.name}", left=("way", "version"))


def texts_of(file: Path, rows: int) -> list[str]:
    """Return the first `rows` texts of a labeled file in a fixed random order."""
    table = read_table(file)
    values = text_values(table, find_column(table, None, "--text-column", TEXT_COLUMNS))
    texts = [text for text in values if text.strip()]
    return [texts[i] for i in fixed_order(texts)[:rows]]


def commands(given: argparse.Namespace, model_type: str) -> dict[str, list[str]]:
    """Return the command of each way that is available; PACKAGE TEXTS OUT stand where its arguments go."""
    arguments = ["PACKAGE", "TEXTS", "OUT"]
    loader = [given.loader_python, str(HERE / "loader_way.py"), *arguments]
    ways = {"how_to_load.py": loader}
    if (given.package / HEAD_FILE).exists():
        ways |= {"how_to_load.py, Python": [*loader, "python"], "how_to_load.py, batches of 32": [*loader, "batch"]}
    ways["ONNX Runtime"] = [sys.executable, *loader[1:], "onnxruntime"]
    for folder in given.also:
        target, words = read_manifest(folder)["target"], [str(folder.resolve()), *arguments[1:]]
        if target == "js":
            ways["js, Node"] = ["node", str(HERE / "program.mjs"), *words]
        else:
            ways[target] = [*loader[:2], *words]
    if given.optimum_python and model_type not in ("ngram", "cascade"):  # optimum knows no such network
        ways["optimum, pipeline"] = [given.optimum_python, str(HERE / "optimum_way.py"), *arguments]
    if given.modules:
        modules = str(given.modules.resolve())
        ways["transformers.js, Node"] = ["node", str(HERE / "node.mjs"), modules, *arguments]
        for name, way in (("transformers.js", "transformers"), ("onnxruntime-web", "onnxruntime")):
            script = ["node", str(HERE / "chromium.mjs"), modules, *arguments, way, given.chromium]
            ways[f"{name}, Chromium"] = script
    return ways | {"mlflow models serve": [sys.executable, "-m", "benchmarks.studies.runtimes.mlflow_way", *arguments]}


def run(way: str, command: Sequence[str], package: Path, texts: list[str], folder: Path) -> Answers:
    """Run one way in a process of its own. Raises: InputError if it fails."""
    files = {"PACKAGE": str(package), "TEXTS": str(folder / "texts.json"), "OUT": str(folder / "out.json")}
    Path(files["TEXTS"]).write_text(json.dumps(texts), "utf-8")
    started = time.time()
    words = [files.get(word, word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode != 0:
        raise InputError(f"{way}: {done.stderr[-1500:]}")
    record: dict[str, Any] = json.loads(Path(files["OUT"]).read_text("utf-8"))
    probabilities = np.array(record["probabilities"], dtype=np.float64)
    return Answers(
        way, record["version"], probabilities, record["ms"], record["first"] - started, record.get("peak_mib")
    )


def compared(found: Sequence[Answers], rule: DecisionRule) -> list[dict[str, Any]]:
    """Return one line for each way, compared with the first.

    Labels are those of the decision rule on the probabilities; `highest` counts the texts whose most probable label, as
    pipelines return it, is another one than that of how_to_load.py.
    """
    reference = found[0].probabilities
    labels = rule.predict(reference)
    return [
        {
            "way": each.way,
            "version": each.version,
            "labels changed": str((rule.predict(each.probabilities) != labels).sum()),
            "highest": str((each.probabilities.argmax(axis=1) != labels).sum()),
            "largest difference": f"{np.abs(each.probabilities - reference).max():.1e}",
            "p50 ms": f"{statistics.median(each.ms):.3f}",
            "first label s": f"{each.first_label_s:.2f}",
            "peak MiB": "" if each.peak_mib is None else f"{each.peak_mib:.0f}",
        }
        for each in found
    ]


def _arguments() -> argparse.Namespace:
    description = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.runtimes", description=description)
    parser.add_argument("package", type=Path)
    parser.add_argument("file", type=Path, help="CSV with the texts")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--loader-python", default=sys.executable, help="Python of how_to_load.py")
    parser.add_argument("--optimum-python", help="Python with optimum; left out unless given")
    parser.add_argument("--modules", type=Path, help="node_modules; JavaScript is left out unless given")
    parser.add_argument("--also", type=Path, action="append", default=[], help="package for target c, js or python")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--out", type=Path, default=Path("runtimes.csv"))
    return parser.parse_args()


if __name__ == "__main__":
    main()

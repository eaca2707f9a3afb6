"""js: an n-gram student as one ES module for Node and browsers, without dependencies, and a page to try it."""

import json
import shutil
import subprocess
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

from exporters.ngram.target import SOURCES, Answer, Classify, ProgramTarget

_CODE = """
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
const { load } = await import(pathToFileURL(process.argv[1]));
try {
  const model = await load(pathToFileURL(process.argv[2]));
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(JSON.parse(line).map((text) => model.classify(text))));
  }
} catch (error) {
  console.log(JSON.stringify({ problem: String(error.message) }));
}
"""


def available() -> str | None:
    """Return None if Node is installed, else what to install."""
    return None if shutil.which("node") else "node missing: install Node.js, on Debian with apt install nodejs"


def start(file: Path) -> Classify:
    """Return the classifier in model.bin, run by hbt's own model.mjs in a Node process, which ends with the function.

    Raises: ValueError if Node is not installed.
    """
    node = shutil.which("node")
    if node is None:
        raise ValueError(available())
    command = [node, "--input-type=module", "-e", _CODE, str(SOURCES / "model.mjs"), str(file.resolve())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    lock = threading.Lock()

    def classify(texts: Sequence[str]) -> list[Answer]:
        assert process.stdin is not None and process.stdout is not None
        with lock:
            try:
                process.stdin.write(json.dumps(list(texts)).encode() + b"\n")
                process.stdin.flush()
            except OSError:  # it has stopped; what it wrote says why
                pass
            line = process.stdout.readline()
        if not line:
            raise ValueError("node stopped without an answer")
        found = json.loads(line)
        if isinstance(found, dict):
            raise ValueError(found["problem"])
        return [Answer(each["chosen"], _numbers(each["logits"]), _numbers(each["probabilities"])) for each in found]

    weakref.finalize(classify, _end, process)
    return classify


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that reads its input to the end."""
    process.kill()
    process.communicate()


def _numbers(values: Sequence[float | None]) -> list[float]:
    """Return numbers of JSON, where those that are not finite are null."""
    return [float("nan") if value is None else value for value in values]


EXPORTER = ProgramTarget(
    "js", "n-gram student as one ES module for Node and browsers", "same", start, available, sources=("model.mjs",)
)

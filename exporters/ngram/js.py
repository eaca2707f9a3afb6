"""js: an n-gram student as one ES module for Node and browsers, without dependencies, and a page to try it."""

import base64
import json
import os
import shutil
import subprocess
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.ngram.target import MODEL_FILE, SOURCES, Answer, Classify, ProgramTarget, has_content
from exporters.registry import Candidate, Evidence, LoadedArtifact

if TYPE_CHECKING:
    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

PAGE_FILE = "page.html"

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


class JsTarget(ProgramTarget):
    """See `exporters.registry.Exporter`."""

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
    ) -> list[Candidate]:
        (found,) = super().candidates(classifier, evidence, settings, reference)
        if not settings.page:
            return [found]

        def write(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
            facts = found.write(folder, in_float)
            (folder / PAGE_FILE).write_bytes(page(folder / MODEL_FILE))
            return facts

        return [Candidate(found.name, write)]

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtifact:
        file = folder / PAGE_FILE
        if os.path.lexists(file) and not has_content(file, page(folder / MODEL_FILE)):
            raise ValueError(f"{PAGE_FILE} differs from what this hbt writes; make the package again")
        return super().load(folder, threads)


def page(file: Path) -> bytes:
    """Return a web page with the program and a model.bin inside, which needs no network."""
    template = (SOURCES / PAGE_FILE).read_text("utf-8")
    code = (SOURCES / "model.mjs").read_text("utf-8")
    model = base64.b64encode(file.read_bytes()).decode()
    return template.replace("/*MODEL*/", model).replace("/*CODE*/", code).encode()


EXPORTER = JsTarget(
    "js", "n-gram student as one ES module for Node and browsers", "same", start, available, sources=("model.mjs",)
)

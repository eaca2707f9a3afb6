"""The answers of packages on emulated processors, compared with those on this machine."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.portability import answers
from benchmarks.portability.processors import CACHE, Processor, emulated, prepare
from exporters.registry import exporter
from toolkit import package
from toolkit.manifest import read_manifest
from toolkit.utils.console import say
from toolkit.utils.errors import InputError
from toolkit.utils.machine import describe_machine

Line = dict[str, Any]
"""One line of the table: column to value."""


@dataclass(frozen=True)
class Package:
    """A package and the texts that it answers: its golden texts, then those of the data."""

    folder: Path
    manifest: dict[str, Any]
    texts: list[str]

    @property
    def requirements(self) -> Path:
        return self.folder / package.REQUIREMENTS_FILE

    @property
    def golden(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.manifest["golden"]
        return found


def compare(
    folders: Sequence[Path],
    texts: Sequence[str],
    processors: Sequence[Processor],
    cache: Path = CACHE,
    record: bool = False,
) -> list[Line]:
    """Return a line for each package on this machine and on each processor.

    record: add each processor on which a package is within its tolerance to `checked_on` of its manifest.
    Raises: InputError if a package is not one of this hbt or is changed, or if the processors cannot be emulated.
    """
    packages = [_opened(folder, texts) for folder in folders]
    alike: dict[bytes, list[Package]] = defaultdict(list)
    for each in packages:
        alike[each.requirements.read_bytes()].append(each)
    for group in alike.values():
        prepare(processors, group[0].requirements, cache)
    found: dict[Path, dict[str, Any]] = {each.folder: {} for each in packages}
    for processor in (None, *processors):
        name = describe_machine().isa if processor is None else processor.shown
        say(f"portability: {name}")
        for group in alike.values():
            python: tuple[list[str], dict[str, str] | None] = ([sys.executable, "-B"], None)
            if processor is not None:
                python = emulated(processor, group[0].requirements, cache)
            for each, answered in zip(group, _answers(*python, group), strict=True):
                found[each.folder][name] = answered
    lines = []
    for each in packages:
        own = found[each.folder][describe_machine().isa]
        own_lines = [_line(each, name, answered, own) for name, answered in found[each.folder].items()]
        if record:
            agreeing = [line["processor"] for line in own_lines if within_tolerance(line)]
            package.record_processors(each.folder, agreeing)
        lines += own_lines
    return lines


def within_tolerance(line: Line) -> bool:
    """Return whether no label of a line has changed and no score differs by more than the tolerance."""
    same_labels = line["labels_changed"] == line["golden_labels_changed"] == 0
    differences = (line["score_difference"], line["golden_score_difference"])
    return same_labels and all(each <= line["tolerance"] for each in differences)  # false for NaN


def _opened(folder: Path, texts: Sequence[str]) -> Package:
    """Return a package whose files are as listed and whose how_to_load.py, which will be run, is that of this hbt."""
    problems = package.verify(folder).problems
    if problems:
        raise InputError(f"{folder}: {problems[0]}")
    manifest = read_manifest(folder)
    loader = exporter(manifest["target"]).loader(folder)
    if (folder / package.LOADER_FILE).read_text("utf-8") != loader:
        raise InputError(
            f"{folder}: its {package.LOADER_FILE} is not that of this hbt; create the package again with hbt compress"
        )
    return Package(folder, manifest, [*(entry["text"] for entry in manifest["golden"]), *texts])


def _answers(
    python: list[str], environment: dict[str, str] | None, packages: Sequence[Package]
) -> list[dict[str, Any]]:
    """Return what each package answers in another Python. See `answers.answer`."""
    given = [[str(each.folder.resolve()), each.manifest["runtime"]["name"], each.texts] for each in packages]
    command = [*python, str(Path(answers.__file__).resolve())]
    request = json.dumps({"packages": given})
    done = subprocess.run(command, input=request, env=environment, capture_output=True, text=True, encoding="utf-8")
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != len(packages):
        problem = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"{packages[min(len(lines), len(packages) - 1)].folder}: does not run there: {problem}")
    return [json.loads(line) for line in lines]


def _line(of: Package, processor: str, answered: dict[str, Any], own: dict[str, Any]) -> Line:
    golden = len(of.golden)

    def difference(kind: str) -> float:
        return round(float(np.abs(np.array(answered[kind]) - np.array(own[kind]))[golden:].max()), 7)

    expected = [entry["scores"] for entry in of.golden]
    golden_labels = [entry["label"] for entry in of.golden]
    golden_gap = np.abs(np.array(answered["probabilities"][:golden]) - np.array(expected)).max()
    return {
        "package": of.folder.name,
        "target": of.manifest["target"],
        "processor": processor,
        "runtime": answered["runtime"],
        "texts": len(of.texts) - golden,
        "labels_changed": sum(a != b for a, b in zip(answered["labels"][golden:], own["labels"][golden:], strict=True)),
        "score_difference": difference("probabilities"),
        "logit_difference": difference("logits"),
        "golden_texts": golden,
        "golden_labels_changed": sum(a != b for a, b in zip(answered["labels"], golden_labels, strict=False)),
        "golden_score_difference": round(float(golden_gap), 7),
        "tolerance": of.manifest["tolerance"],
    }

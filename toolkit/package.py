"""Write, verify and load packages.

Loading needs only the runtime of the target. It never unpickles and runs the loader of hbt, not the copy in the
package folder. `verify` reports files that have changed since the package was written.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from exporters.loaders.base.routing import TRANSFORMER
from exporters.loaders.command.self_test import GOLDEN_TOLERANCE
from exporters.loaders.compose import CASCADE, command_line_source, model_type
from exporters.loaders.model_bin.arrays import HEAD_FILE
from exporters.loaders.onnx_runtime.graph_file import GRAPH_FILE, graph_file
from exporters.registry import Candidate, Exporter, LoadedArtifact, exporter, targets
from toolkit.golden_scores import Scored, one_line, score_texts
from toolkit.manifest import MANIFEST_FILE, SCHEMA, changed_files, read_manifest, sha256_of
from toolkit.signature import is_signed, signature_problems
from toolkit.utils.console import printable
from toolkit.utils.errors import InputError
from toolkit.utils.files import read_json, write_text

if TYPE_CHECKING:
    from toolkit.evaluation.decision_rule import DecisionRule
    from toolkit.modeling.classifier import Classifier

CONFIG_FILE, LOADER_FILE, COMMAND_LINE_FILE = "config.json", "how_to_load.py", "command_line.py"
REQUIREMENTS_FILE, CARD_FILE = "requirements.txt", "README.md"
RANGES = {
    "onnxruntime": ">=1.19,<2",
    "openvino": ">=2025.0,<2027",
    "torch": ">=2.6,<2.15",
    "transformers": ">=4.53,<6",
    "safetensors": ">=0.4.5,<1",
    "tokenizers": ">=0.20,<1",
    "numpy": ">=1.26,<3",
}
"""Versions that a package accepts: each has wheels for Python 3.9 to 3.13 (`python -m benchmarks.studies.wheels`)."""
_CHECKPOINT_ONLY = ("hbt", "architectures", "transformers_version", "_name_or_path", "dtype", "torch_dtype")
NO_RUNTIME = "none"
"""Name of the runtime in the manifest of a package that needs no distribution."""


@dataclass(frozen=True)
class Verification:
    """The result of `verify`."""

    files: int
    golden_texts: int
    largest_score_gap: float
    signature: Literal["none", "not checked", "valid", "invalid"]
    """`not checked`: there is one, and no public key was given."""
    problems: list[str]
    """One line per problem; empty if the package is unchanged and reproduces its golden scores."""


def write_loadable(
    folder: Path,
    classifier: "Classifier",
    rule: "DecisionRule",
    target: Exporter,
    candidate: Candidate,
    in_float: frozenset[str],
) -> tuple[int, dict[str, Any]]:
    """Write a candidate as a loadable folder: a package without model card and manifest.

    Returns: the size of the artifact in bytes, and the facts reported by the exporter.
    """
    from toolkit.modeling.classifier import TOKENIZER_FILE
    from toolkit.modeling.tokenizer import save_tokenizer, save_tokenizer_config

    (folder / target.file).parent.mkdir(parents=True, exist_ok=True)
    facts = candidate.write(folder, in_float)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    save_tokenizer(classifier.tokenizer, classifier.pad_id, folder / TOKENIZER_FILE)
    save_tokenizer_config(classifier.tokenizer, classifier.pad_id, folder / "tokenizer_config.json")
    write_loading_files(folder, classifier, rule, target)
    return size, facts


def write_loading_files(folder: Path, classifier: "Classifier", rule: "DecisionRule", target: Exporter) -> None:
    """Write config.json, how_to_load.py, command_line.py and requirements.txt."""
    network = classifier.network.config.to_diff_dict()
    own = {name: value for name, value in network.items() if name not in _CHECKPOINT_ONLY}
    own |= {
        "id2label": dict(enumerate(classifier.labels)),
        "label2id": {name: i for i, name in enumerate(classifier.labels)},
        "max_length": classifier.max_length,
    }
    own |= rule.as_dict()
    if target.file == GRAPH_FILE:  # the dtype of this file name; by default, browsers look for another one
        own["transformers.js_config"] = {"dtype": "fp32"}
    (folder / CONFIG_FILE).write_text(json.dumps(own, indent=2, ensure_ascii=False) + "\n", "utf-8")
    loader = target.loader(folder)
    (folder / LOADER_FILE).write_text(loader, "utf-8", newline="\n")
    if Path(COMMAND_LINE_FILE).stem in loader:  # a loader of another kind has a command line of its own
        (folder / COMMAND_LINE_FILE).write_text(command_line_source(), "utf-8", newline="\n")
    (folder / REQUIREMENTS_FILE).write_text(requirements(target.needs(folder)), "utf-8", newline="\n")


def requirements(distributions: Sequence[str]) -> str:
    """Return requirements.txt: the range of each distribution, below a comment with the versions used here."""
    used = versions_of(distributions)
    exact = " ".join(f"{name}=={number}" for name, number in used.items())
    if not used:
        return ""
    lines = [f"{name}{RANGES.get(name, f'=={number}')}" for name, number in used.items()]
    return "\n".join([f"# Checked on Python {platform.python_version()} with {exact}", *lines]) + "\n"


def versions_of(distributions: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each distribution, without the label of its build."""
    return {name: version(name).split("+")[0] for name in distributions}


def golden_scores(model: LoadedArtifact, texts: list[str]) -> list[dict[str, Any]]:
    """Return each text with its label and scores, computed one text at a time, and its token ids if they are known."""
    golden = []
    for text in texts:
        scores = model.predict_proba([text])[0]
        entry = {"text": text, "label": model.predict([text])[0][0], "scores": [float(s) for s in scores]}
        encode = getattr(model, "encode", None)  # of the loaders of hbt
        golden.append(entry if encode is None else entry | {"ids": encode([text])[0].tolist()})
    return golden


def write_manifest(
    folder: Path,
    target: Exporter,
    isa: str,
    lineage: dict[str, Any],
    golden: list[dict[str, Any]],
    this_cpu_only: bool = False,
    evaluation: dict[str, Any] | None = None,
) -> None:
    """Write manifest.json with the hashes of all other files in the folder; call it last.

    isa: instruction set of this machine, on which the golden scores were computed.
    this_cpu_only: whether some processors compute other scores.
    evaluation: all measured figures, in JSON types; see `toolkit.export.figures`.
    """
    used = versions_of(target.needs(folder))
    runtime = next(iter(used), NO_RUNTIME)
    manifest = {
        "schema": SCHEMA,
        "target": target.name,
        "runtime": {
            "name": runtime,
            "version": version(runtime) if used else "",
            "versions": used,
            "python": platform.python_version(),
        },
        "checked_on": [isa],
        "tolerance": GOLDEN_TOLERANCE,
        "this_cpu_only": this_cpu_only,
        "files": {
            file.relative_to(folder).as_posix(): {"sha256": sha256_of(file), "size_bytes": file.stat().st_size}
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name != MANIFEST_FILE
        },
        "lineage": lineage,
        "golden": golden,
    } | ({} if evaluation is None else {"evaluation": evaluation})
    _write(manifest, folder)


def record_processors(folder: Path, processors: Sequence[str]) -> None:
    """Add processors to those on which a package was found to give its golden scores.

    Raises: InputError if `folder` is not a package, or if it is signed.
    """
    manifest = read_manifest(folder)
    if is_signed(folder):
        raise InputError(f"{folder}: is signed, and its manifest would change; record processors before hbt sign")
    _write(manifest | {"checked_on": list(dict.fromkeys([*manifest["checked_on"], *processors]))}, folder)


def _write(manifest: dict[str, Any], folder: Path) -> None:
    write_text(folder / MANIFEST_FILE, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def load(folder: Path, threads: int | None = None) -> LoadedArtifact:
    """Return the predictor of a package, after a check of every file that the manifest lists.

    Raises: InputError if `folder` is not a package, one of its files is missing, changed or broken, or its runtime is
        not installed.
    """
    manifest = read_manifest(folder)
    target = _target(folder, manifest)
    problems = changed_files(folder, manifest, unlisted=False) or _unlisted_parts(folder, manifest, target)
    if problems:
        raise InputError(f"{folder}: does not load: {problems[0]}")
    try:
        return target.load(folder, threads)
    except ImportError as error:
        needed = " ".join(target.needs(folder))
        raise InputError(f"{folder}: needs {error.name}, which is not installed: pip install {needed}") from None
    except Exception as error:  # the runtimes raise types of their own for a broken file
        raise InputError(f"{folder}: does not load: {printable(one_line(error))}") from error


def labels_of(folder: Path) -> tuple[str, ...]:
    """Return the labels of a package without loading its model. Raises: InputError if it does not state them."""
    names = (read_json(folder / CONFIG_FILE) or {}).get("id2label")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise InputError(f"{folder}: {CONFIG_FILE} does not name the labels; create the package again")
    return tuple(names.values())


def predict(model: LoadedArtifact, texts: Sequence[str], batch_size: int = 1) -> list[tuple[str, float]]:
    """Return label and probability of each text.

    Raises: InputError if the model fails or its scores are not finite, which means that its package is broken.
    """
    try:
        return model.predict(texts, batch_size)
    except Exception as error:  # the runtimes raise types of their own for a broken file
        raise InputError(f"the package does not answer: {printable(one_line(error))}") from error


def answer_below(folder: Path) -> float | None:
    """Return the probability below which a loaded package answers `unsure`; None if it always answers a label.

    Raises: InputError if its config.json does not state a probability.
    """
    from exporters.loaders.command.model import answer_below

    try:
        return answer_below(folder)
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from None


def verify(folder: Path, public_key: Path | None = None) -> Verification:
    """Check every file of a package, its target and runtime, its signature and its golden scores.

    The scores are computed in a process with limits on time and memory.

    public_key: PEM file of the key that must have signed the package; None checks no signature.
    Raises: InputError if `folder` is not a package, its target does not exist here, or the key cannot be used.
    """
    manifest = read_manifest(folder)
    target = _target(folder, manifest)
    golden, gap = manifest["golden"], float("nan")
    problems = changed_files(folder, manifest) or _unlisted_parts(folder, manifest, target)
    problems = problems or _runtime_problems(folder, manifest, target)
    signature: Literal["none", "not checked", "valid", "invalid"] = "not checked" if is_signed(folder) else "none"
    if public_key is not None and not problems:
        problems = [printable(problem) for problem in signature_problems(folder, public_key)]
        signature = "invalid" if problems else "valid"
    if not problems:
        found = score_texts(folder, target.name, [entry["text"] for entry in golden])
        if isinstance(found, str):
            problems = [printable(found)]
        elif not (problems := _golden_problems(golden, found)):
            gap, problems = _compare(manifest, found)
    return Verification(len(manifest["files"]), len(golden), gap, signature, problems)


def _target(folder: Path, manifest: dict[str, Any]) -> Exporter:
    """Return the exporter of the target in a manifest. Raises InputError if there is none of this name."""
    name = manifest["target"]
    known = targets()
    if name not in known:
        shown = printable(name[:100])
        raise InputError(f"{folder}: unknown target '{shown}'; available: {', '.join(known)}; update hbt")
    return exporter(name)


def _unlisted_parts(folder: Path, manifest: dict[str, Any], target: Exporter) -> list[str]:
    """Return one line for each file that loading reads and the manifest does not list."""

    def artifact(part: Path) -> str:
        return graph_file(part) if target.file == GRAPH_FILE else target.file

    needed = [artifact(folder), CONFIG_FILE, "tokenizer.json", LOADER_FILE, REQUIREMENTS_FILE]
    if target.file == GRAPH_FILE and os.path.lexists(folder / HEAD_FILE):
        needed.append(HEAD_FILE)
    if model_type(folder) == CASCADE:
        second = (artifact(folder / TRANSFORMER), CONFIG_FILE, "tokenizer.json")
        needed += [f"{TRANSFORMER}/{name}" for name in second]
        if os.path.lexists(folder / TRANSFORMER / LOADER_FILE):  # older cascades have none
            needed.append(f"{TRANSFORMER}/{LOADER_FILE}")
    return [f"{name} is not in the manifest" for name in needed if name not in manifest["files"]]


def _runtime_problems(folder: Path, manifest: dict[str, Any], target: Exporter) -> list[str]:
    """Return one line if the runtime in the manifest is not that of the target and of requirements.txt."""
    name, version_ = manifest["runtime"]["name"], manifest["runtime"]["version"]
    needed = target.needs(folder)
    runtime = needed[0] if needed else NO_RUNTIME
    if name != runtime:
        return [f"the runtime of {target.name} is {runtime}, not '{printable(name[:100])}'"]
    lines = (folder / REQUIREMENTS_FILE).read_text("utf-8", errors="replace").splitlines()
    if not needed:
        return [f"{REQUIREMENTS_FILE} names packages, and {target.name} needs none"] if lines else []
    if not any(_allows(line, name, version_) for line in lines):
        return [
            f"{MANIFEST_FILE} states {name} '{printable(version_[:100])}', which {REQUIREMENTS_FILE} does not allow"
        ]
    return []


def _allows(line: str, name: str, version_: str) -> bool:
    """Return whether a line of requirements.txt asks for a distribution and allows this version of it."""
    try:
        required = Requirement(line)
        return required.name == name and required.specifier.contains(Version(version_).public, prereleases=True)
    except (InvalidRequirement, InvalidVersion):  # a comment, or a manifest of somebody else
        return False


def _golden_problems(golden: list[dict[str, Any]], found: Scored) -> list[str]:
    """Return one line if golden texts and answers do not have the same labels, or a score is not finite."""
    for i, (entry, scores) in enumerate(zip(golden, found.scores, strict=True)):
        if entry["label"] not in found.labels:
            return [f"the label '{printable(entry['label'][:100])}' of golden text {i} is not a label of the model"]
        if len(entry["scores"]) != len(found.labels):
            return [f"golden text {i} has {len(entry['scores'])} scores, and the model has {len(found.labels)} labels"]
        if len(scores) != len(found.labels) or not np.isfinite(scores).all():
            return [f"the model does not give golden text {i} a finite score for each label"]
    return []


def _compare(manifest: dict[str, Any], found: Scored) -> tuple[float, list[str]]:
    """Return the largest difference from the golden scores, and one line if it is too large or a label changed."""
    golden = manifest["golden"]
    gap = float(np.abs(np.array([entry["scores"] for entry in golden]) - np.array(found.scores)).max())
    flips = sum(entry["label"] != label for entry, label in zip(golden, found.predicted, strict=True))
    if flips or not gap <= manifest["tolerance"]:
        checked_on = printable(", ".join(manifest["checked_on"])[:200])
        fix = "without --this-cpu-only" if manifest["this_cpu_only"] else "on this kind of processor"
        return gap, [
            f"golden scores differ by up to {gap:.2g} and {flips} labels flip; "
            f"the package was checked on {checked_on}: make it again {fix}"
        ]
    return gap, []

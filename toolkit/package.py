"""Write, verify and load packages.

Loading needs only the runtime of the target. It never unpickles and runs the loader of hbt, not the copy in the
package folder. `verify` reports files that have changed since the package was written.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.registry import Candidate, Exporter, LoadedArtifact, exporter
from toolkit.utils.errors import InputError

if TYPE_CHECKING:
    from toolkit.modeling.classifier import Classifier

SCHEMA = 1
MANIFEST_FILE, CONFIG_FILE, LOADER_FILE = "manifest.json", "config.json", "how_to_load.py"
REQUIREMENTS_FILE, CARD_FILE = "requirements.txt", "README.md"
_CHECKPOINT_ONLY = ("hbt", "architectures", "transformers_version", "_name_or_path", "dtype", "torch_dtype")
GOLDEN_TOLERANCE = 1e-3
"""Largest accepted difference of golden scores: processors add in different orders."""


@dataclass(frozen=True)
class Verification:
    """The result of `verify`."""

    files: int
    golden_texts: int
    largest_score_gap: float
    problems: list[str]
    """One line per problem; empty if the package is unchanged and reproduces its golden scores."""


def write_loadable(
    folder: Path,
    classifier: "Classifier",
    threshold: float | None,
    target: Exporter,
    candidate: Candidate,
    in_float: frozenset[str],
) -> tuple[int, dict[str, Any]]:
    """Write a candidate as a loadable folder: a package without model card and manifest.

    Returns: the size of the artifact in bytes, and the facts reported by the exporter.
    """
    from toolkit.modeling.classifier import TOKENIZER_FILE
    from toolkit.modeling.tokenizer import save_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    facts = candidate.write(folder, in_float)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    save_tokenizer(classifier.tokenizer, classifier.pad_id, folder / TOKENIZER_FILE)
    write_loading_files(folder, classifier, threshold, target)
    return size, facts


def write_loading_files(folder: Path, classifier: "Classifier", threshold: float | None, target: Exporter) -> None:
    """Write config.json, how_to_load.py and requirements.txt."""
    network = classifier.network.config.to_diff_dict()
    own = {name: value for name, value in network.items() if name not in _CHECKPOINT_ONLY}
    own |= {
        "id2label": dict(enumerate(classifier.labels)),
        "label2id": {name: i for i, name in enumerate(classifier.labels)},
        "max_length": classifier.max_length,
        "threshold": threshold,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(own, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / LOADER_FILE).write_text(target.loader(str(own.get("model_type", ""))), "utf-8", newline="\n")
    pins = [f"{name}=={version(name).split('+')[0]}" for name in target.distributions]
    (folder / REQUIREMENTS_FILE).write_text("\n".join(pins) + "\n", "utf-8")


def golden_scores(model: LoadedArtifact, texts: list[str]) -> list[dict[str, Any]]:
    """Return each text with its label and scores, computed one text at a time."""
    golden = []
    for text in texts:
        scores = model.predict_proba([text])[0]
        golden.append({"text": text, "label": model.predict([text])[0][0], "scores": [float(s) for s in scores]})
    return golden


def write_manifest(
    folder: Path, target: Exporter, isa: str, lineage: dict[str, Any], golden: list[dict[str, Any]]
) -> None:
    """Write manifest.json with the hashes of all other files in the folder; call it last."""
    runtime = target.distributions[0]
    manifest = {
        "schema": SCHEMA,
        "target": target.name,
        "runtime": {"name": runtime, "version": version(runtime)},
        "checked_on": isa,
        "files": {
            file.relative_to(folder).as_posix(): {"sha256": _sha256(file), "size_bytes": file.stat().st_size}
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name != MANIFEST_FILE
        },
        "lineage": lineage,
        "golden": golden,
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a package.

    Raises: InputError if `folder` is not a package, or its schema is not supported.
    """
    file = folder / MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text("utf-8"))
        schema = manifest["schema"]
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: not a package (no {MANIFEST_FILE}); create one with hbt compress") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise InputError(f"{file}: not a valid manifest; create the package again with hbt compress") from None
    if schema != SCHEMA:
        raise InputError(
            f"{file}: schema {schema}, but this hbt supports {SCHEMA}; update hbt or create the package again"
        )
    return manifest


def load(folder: Path, threads: int | None = None) -> LoadedArtifact:
    """Return the predictor of a package.

    Raises: InputError if `folder` is not a package, a file is missing or damaged, or the runtime is not installed.
    """
    target = exporter(read_manifest(folder)["target"])
    try:
        return target.load(folder, threads)
    except ImportError as error:
        needed = " ".join(target.distributions)
        raise InputError(f"{folder}: needs {error.name}, which is not installed; run pip install {needed}") from None
    except Exception as error:  # each runtime raises its own types for a damaged file
        problems = changed_files(folder)
        if not problems:
            raise
        raise InputError(f"{folder}: does not load: {problems[0]}") from error


def verify(folder: Path) -> Verification:
    """Check the hashes of all files and the golden scores.

    Raises: InputError if `folder` is not a package.
    """
    manifest = read_manifest(folder)
    problems = changed_files(folder)
    gap = float("nan")
    if not problems:
        golden = manifest["golden"]
        found = golden_scores(load(folder), [entry["text"] for entry in golden])
        gap = max(
            float(np.abs(np.array(a["scores"]) - np.array(b["scores"])).max())
            for a, b in zip(golden, found, strict=True)
        )
        flips = sum(a["label"] != b["label"] for a, b in zip(golden, found, strict=True))
        if flips or gap > GOLDEN_TOLERANCE:
            problems.append(
                f"golden scores differ by up to {gap:.2g} and {flips} labels flip; "
                f"the package was verified on {manifest['checked_on']}; create it again on this kind of processor"
            )
    return Verification(len(manifest["files"]), len(manifest["golden"]), gap, problems)


def changed_files(folder: Path) -> list[str]:
    """Return one line for each file that is missing, changed or not in the manifest."""
    listed = read_manifest(folder)["files"]
    problems = []
    for name, entry in listed.items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif _sha256(file) != entry["sha256"]:
            problems.append(f"{name} has changed (different SHA-256)")
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in listed and name != MANIFEST_FILE and "__pycache__" not in file.parts:
            problems.append(f"{name} is not in the manifest")
    return problems


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

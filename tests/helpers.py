"""What tests make things with; fixtures are in conftest.py."""

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.registry import NOTHING, Evidence, exporter
from toolkit import package as packages
from toolkit.config.recipe import Recipe
from toolkit.config.settings import ExportSettings, ModelSettings
from toolkit.config.toml_file import recipe_from
from toolkit.data.corpus import Corpus
from toolkit.data.demo import DEMO_LABEL_NAMES, demo_table
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.predictor import rule_of
from toolkit.evaluation.reliability.scope import Scope
from toolkit.evaluation.reliability.scope_file import scope_facts, scope_of, write_scope
from toolkit.export.reference import make_reference
from toolkit.export.reliability.drift_facts import drift_facts
from toolkit.manifest import MANIFEST_FILE
from toolkit.modeling.classifier import Classifier
from toolkit.package import write_loadable
from toolkit.training.dataset import Examples
from toolkit.workflows.run_summary import RunSummary

TINY = ModelSettings(model="shape:1x32", pooling="mean", max_length=32)
Hbt = Callable[..., int]
"""The command line in this process: arguments in, exit code out."""
SLOW = pytest.mark.slow
ODD_TEXTS = [
    "sea",
    "a",
    ".",
    "🙂🙃",
    "\u200b",
    "  sun\u00a0 sea ",
    "ভালো না, খারাপও না",
    "sun number 7 of the made-up texts " * 40,
    "\x00 control",
    "क़ मিশ্র mixed",
]


@dataclass(frozen=True)
class Finished:
    """A pipeline that ran to its end; `outcome` has paths relative to `home`."""

    home: Path
    recipe: Recipe
    outcome: RunSummary

    @property
    def run(self) -> Path:
        return self.home / self.outcome.folder

    @property
    def package(self) -> Path:
        assert self.outcome.package is not None
        return self.home / self.outcome.package


def rest_slow(*values: Any) -> list[Any]:
    """Return values of a parameter, of which `make test` tries the first and `make test-slow` the others."""
    first, *rest = values
    return [first, *(pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=SLOW) for each in rest)]


def examples(corpus: Corpus, split: str) -> Examples:
    rows = corpus.rows(split)
    return Examples(corpus.take(rows), corpus.labels[rows])


def write_comments(file: Path, rows: int = 400) -> None:
    """Harmless demo comments under the column names of a hate-speech corpus."""
    table = demo_table().columns
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["Comments", "HateSpeech", "kind"])
        for text, label, kind in list(zip(table["text"], table["label"], table["kind"], strict=True))[:rows]:
            writer.writerow([text, DEMO_LABEL_NAMES.index(label), kind])


def tiny_recipe(**changed: Any) -> Recipe:
    given: dict[str, Any] = {
        "data": "comments.csv",
        "slice": ("0:200",),
        "folds": 2,
        "model": "shape:2x32",
        "pooling": "mean",
        "max_length": 32,
        "epochs": 2,
        "learning_rate": 1e-3,
        "kd_learning_rate": 1e-3,
        "pipeline": "baseline_kd_quant",
        "student": "layers:1",
        "max_drop": 0.5,  # a handful of validation rows: one more error is many points
        "author": "tester",
        "name": "tiny",
    }
    return recipe_from(None, given | changed)


def evidence_of(corpus: Corpus, rule: DecisionRule | None = None) -> Evidence:
    """What an exporter may look at: 32 training texts, and all validation rows."""
    validation = corpus.rows("validation")
    some = corpus.take(corpus.rows("train")[:32])
    return Evidence(some, corpus.take(validation), corpus.labels[validation], rule or DecisionRule())


def written(
    target: str, classifier: Classifier, evidence: Evidence, folder: Path, candidate: int = 0, **settings: Any
) -> dict[str, Any]:
    """Write one candidate of a target as a loadable folder; return the facts of its exporter."""
    how = exporter(target)
    reference = make_reference(how, classifier, evidence, folder.with_name(folder.name + "-reference"))
    candidates = how.candidates(classifier, evidence, ExportSettings(target=target, **settings), reference.folder)
    _, facts = write_loadable(folder, classifier, evidence.rule, how, candidates[candidate], NOTHING)
    return reference.facts | facts


def watched(package: Path, corpus: Corpus) -> Path:
    """Give a package a scope and a reference for `hbt drift`, from a corpus, as the export does."""
    known = scope_of(corpus)
    write_scope(known, package)
    rows = np.concatenate([corpus.rows("validation"), corpus.rows("test")])
    model = packages.load(package)
    logits = np.array(model.predict_logits(corpus.take(rows)), dtype=np.float32)
    own = Contender("package", Predictions(rows, logits), rule_of(model))
    rehash(package)
    manifest = json.loads((package / MANIFEST_FILE).read_text("utf-8"))
    facts = {
        "scope": scope_facts(corpus, Scope(known), known),
        "drift": drift_facts(corpus, own, Scope(known), packages.answer_below(package)),
    }
    manifest["evaluation"] = manifest.get("evaluation", {}) | facts
    (package / MANIFEST_FILE).write_text(json.dumps(manifest, ensure_ascii=False), "utf-8")
    return package


def rehash(folder: Path) -> None:
    """Write the present files of a package into its manifest, as somebody who changes both would."""
    manifest = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(held).hexdigest(), "size_bytes": len(held)}
        for name, held in contents(folder).items()
        if name != MANIFEST_FILE
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, ensure_ascii=False), "utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, to see that nothing changed."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def random_logits(rows: int, labels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, labels)).astype(np.float32)

"""Export a cascade: one package of an n-gram student and a transformer, each exported through the quality gate.

Routing and decision rule are chosen on the validation rows from the logits of the two exported models. The whole
package is then evaluated as any other, and it must pass the gate as well: compared with the same cascade in single
precision.
"""

import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporters.loaders.base.routing import TRANSFORMER
from exporters.loaders.compose import CASCADE
from exporters.loaders.model_bin.arrays import HEAD_FILE
from exporters.ngram.tables import write_head
from toolkit.config.settings import ExportSettings
from toolkit.data.demo import DEMO_SENTENCES
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.export.candidates import loses_too_much
from toolkit.export.cascade_curve import draw_curve
from toolkit.export.search import SelectedCandidate
from toolkit.export.stage import Artifact, Source, checked, loaded_artifact, make_artifact, write_package
from toolkit.latency.timing import fixed_order, times_in_turns
from toolkit.modeling.classifier import Classifier
from toolkit.package import COMMAND_LINE_FILE, CONFIG_FILE, LOADER_FILE, REQUIREMENTS_FILE
from toolkit.stages.result import StageResult
from toolkit.training.routing import Parts, Routing, at_shares, choose_routing, margins
from toolkit.utils.console import working
from toolkit.utils.errors import NothingPasses
from toolkit.utils.scratch import scratch_folder

FEW = 0.02
"""A share of deferred texts below which the transformer is not worth its size."""
TIMED = 200
"""Number of validation texts for the mean latencies of both models."""


def compress_cascade(
    ngram: Source,
    transformer: Source,
    export: ExportSettings,
    out: Path,
    force: bool = False,
    tuned: Classifier | None = None,
) -> tuple[StageResult, Predictions]:
    """Export both models, choose the routing and write the package folder `out`.

    tuned: the transformer after quantization-aware training.
    Returns: the result, and the predictions of the package on validation and test rows.
    Raises: as `toolkit.export.stage.compress`.
    """
    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.parent) as scratch:
        first = make_artifact(ngram, replace(export, quant_method=None), scratch / "ngram", force)
        second = make_artifact(transformer, export, scratch / TRANSFORMER, force, tuned)
        whole = _joined(first, second, export, scratch / CASCADE)
        _refuse_loss(whole, export.max_drop, force)
        return write_package(checked(whole, export), out, force, started), whole.predictions


def _joined(first: Artifact, second: Artifact, export: ExportSettings, folder: Path) -> Artifact:
    """Choose the routing of an n-gram student and a transformer, and write and load the folder of the cascade."""
    validation, test = _measured(first, second)
    routing, rule = choose_routing(validation, first.rule, export.cascade_share, export.cascade_ms)
    _write_folder(first, second, routing, rule, folder)
    curve = [(validation.point(each, rule), test.point(each, rule)) for each in at_shares(validation, routing)]
    chosen = test.point(routing, rule)
    draw_curve([point for _, point in curve], chosen, folder)
    facts = asdict(routing) | {
        "validation": asdict(validation.point(routing, rule)),
        "test": asdict(chosen),
        "ngram_ms": validation.ngram_ms,
        "transformer_ms": validation.transformer_ms,
        "curve": [{"validation": asdict(on_validation), "test": asdict(on_test)} for on_validation, on_test in curve],
    }
    choice = SelectedCandidate(
        folder, first.choice.size_bytes + second.choice.size_bytes, second.choice.facts | {"cascade": facts}
    )
    whole = loaded_artifact(_source(first, second, routing), second.target, choice, rule)
    return replace(
        whole,  # without a scaling: each part has its own
        name=f"{whole.name}, cascade",
        parameters=first.parameters + second.parameters,
        golden=(*whole.golden, *_deferred_words(first, routing)),
    )


def _measured(first: Artifact, second: Artifact) -> list[Parts]:
    """Return logits on validation rows and on test rows, with the mean latencies of both models."""
    corpus = second.source.corpus
    texts = corpus.take(corpus.rows("validation"))
    timed = [texts[i] for i in fixed_order(texts)[:TIMED]]
    models = [part.target.load(part.choice.folder, threads=1) for part in (first, second)]
    with working("cascade: timing both models"):
        ngram_ms, transformer_ms = times_in_turns(models, timed).mean(axis=0).tolist()
    splits = (corpus.rows("validation"), corpus.rows("test"))
    return [
        Parts(corpus.labels[rows], first.predictions.of(rows), second.predictions.of(rows), ngram_ms, transformer_ms)
        for rows in splits
    ]


def _deferred_words(first: Artifact, routing: Routing) -> list[str]:
    """Return a word of the demo sentences that is deferred, if any, so that golden scores cover both models."""
    words = sorted({word for sentence in DEMO_SENTENCES for word in sentence.split()})
    logits = first.model.predict_logits(words)
    nearest = int(margins(logits, routing.offsets).argmin())
    return [words[nearest]] if routing.deferred(logits)[nearest] else []


def describe_cascade(facts: dict[str, Any]) -> str:
    """Return one line on what a cascade does. facts: as stored by `compress_cascade` under "cascade"."""
    share, mean_ms = facts["test"]["share"], facts["test"]["mean_ms"]
    line = (
        f"the cascade defers {100 * share:.0f} % of the test texts to its transformer; mean latency {mean_ms:.3f} ms "
        f"(n-gram student {facts['ngram_ms']:.3f} ms, transformer {facts['transformer_ms']:.3f} ms)"
    )
    few = facts["validation"]["share"] < FEW
    return line + "; an ngram student alone would be smaller and hardly less accurate" * few


def _write_folder(first: Artifact, second: Artifact, routing: Routing, rule: DecisionRule, folder: Path) -> None:
    """Write the cascade: the n-gram part with the loader and settings of the whole, the transformer in a subfolder."""
    shutil.copytree(first.choice.folder, folder)
    shutil.copytree(
        second.choice.folder,
        folder / TRANSFORMER,
        ignore=shutil.ignore_patterns(COMMAND_LINE_FILE, REQUIREMENTS_FILE),
    )
    shutil.copyfile(second.choice.folder / REQUIREMENTS_FILE, folder / REQUIREMENTS_FILE)
    config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    config |= {"model_type": CASCADE, "cascade": asdict(routing)} | rule.as_dict()
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if (folder / HEAD_FILE).exists():  # it states the decision rule, too
        ngram: Any = first.source.classifier
        write_head(ngram.network, ngram.tokenizer, ngram.labels, rule, folder)
    (folder / LOADER_FILE).write_text(second.target.loader(folder), "utf-8", newline="\n")


def _source(first: Artifact, second: Artifact, routing: Routing) -> Source:
    """Return the source of the whole: its predictions are those of the same cascade in single precision.

    The package is also compared with both of its parts.
    """
    source = second.source
    rows = source.predictions.rows
    logits = routing.logits(first.source.predictions.of(rows), source.predictions.of(rows))
    parts = [
        Contender(f"n-gram student alone, {first.target.name}", first.predictions, first.rule),
        Contender(f"transformer alone, {second.target.name}", second.predictions, second.rule),
    ]
    return replace(source, predictions=Predictions(rows, logits.astype(np.float32)), beside=[*source.beside, *parts])


def _refuse_loss(whole: Artifact, max_drop: float, force: bool) -> None:
    """Raise NothingPasses if the whole loses too much macro-F1 against the same cascade in single precision."""
    corpus, rows = whole.source.corpus, whole.source.corpus.rows("validation")
    before, after = (
        whole.rule.predict(softmax(predictions.of(rows).astype(np.float64)))
        for predictions in (whole.source.predictions, whole.predictions)
    )
    if not force and loses_too_much(corpus.labels[rows], before, after, len(corpus.label_names), max_drop):
        facts = whole.choice.facts["gate"] | {"ships": None}
        problem = "the cascade of both parts loses more than --max-drop; package it anyway"
        raise NothingPasses(whole.target.name, facts, problem)

"""Export a cascade: one package of an n-gram student and a transformer, each exported through the quality gate.

Routing and decision rule are chosen on the validation rows from the logits of the two exported parts. The whole package
is then evaluated as any other, and it must pass the gate as well: compared with the same cascade in single precision.
"""

import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporters.loaders.compose import CASCADE, SECOND
from toolkit.config.settings import ExportSettings
from toolkit.data.demo import DEMO_SENTENCES
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.export.candidates import loses_too_much
from toolkit.export.cascade_curve import draw_curve
from toolkit.export.search import SelectedCandidate
from toolkit.export.stage import Artifact, Source, evaluated, make_artifact, write_package
from toolkit.latency.timing import fixed_order, times_in_turns
from toolkit.modeling.classifier import Classifier
from toolkit.package import CONFIG_FILE, LOADER_FILE, REQUIREMENTS_FILE
from toolkit.stages.result import StageResult
from toolkit.training.routing import Parts, Point, Routing, at_shares, choose_routing, margins
from toolkit.utils.console import say, working
from toolkit.utils.errors import NothingPasses
from toolkit.utils.scratch import scratch_folder

FEW = 0.02
"""A share of texts below which the transformer is not worth its size."""
TIMED = 200
"""Number of validation texts for the mean latencies of the parts."""


def compress_cascade(
    ngram: Source,
    transformer: Source,
    export: ExportSettings,
    out: Path,
    force: bool = False,
    tuned: Classifier | None = None,
) -> tuple[StageResult, Predictions]:
    """Export both parts, choose the routing and write the package folder `out`.

    tuned: the transformer after quantization-aware training.
    Returns: the result, and the predictions of the package on validation and test rows.
    Raises: as `toolkit.export.stage.compress`.
    """
    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.parent) as scratch:
        first = make_artifact(ngram, replace(export, quant_method=None), scratch / "ngram", force)
        second = make_artifact(transformer, export, scratch / SECOND, force, tuned)
        whole = _joined(first, second, export, scratch / CASCADE)
        _refuse_loss(whole, export.max_drop, force)
        return write_package(whole, out, force, started), whole.predictions


def _joined(first: Artifact, second: Artifact, settings: ExportSettings, folder: Path) -> Artifact:
    """Choose the routing of two parts, write the folder of the cascade and evaluate it."""
    corpus, validation, test = second.source.corpus, "validation", "test"
    ngram_ms, transformer_ms = _mean_latencies(first, second)
    measured = {
        split: Parts(
            corpus.labels[corpus.rows(split)],
            first.predictions.of(corpus.rows(split)),
            second.predictions.of(corpus.rows(split)),
            ngram_ms,
            transformer_ms,
        )
        for split in (validation, test)
    }
    share, budget_ms = settings.cascade_share, settings.cascade_ms
    routing, rule = choose_routing(measured[validation], first.result.rule, share, budget_ms)
    points = {split: asdict(parts.point(routing, rule)) for split, parts in measured.items()}
    steps = at_shares(measured[validation], routing)
    curve = {split: [parts.point(each, rule) for each in steps] for split, parts in measured.items()}
    _write_folder(first, second, routing, rule, folder)
    facts = second.result.details | {
        "cascade": routing.as_dict()
        | points
        | {
            "ngram_ms": ngram_ms,
            "transformer_ms": transformer_ms,
            "curve": {split: [asdict(point) for point in found] for split, found in curve.items()},
        }
    }
    say(_summary(points[validation], points[test], ngram_ms, transformer_ms))
    if points[validation]["share"] < FEW:
        say("cascade: so few texts are worth the transformer that hbt run --student ngram makes the better package")
    draw_curve(curve[test], Point(**points[test]), folder)
    source = _source(first, second, routing)
    size = first.result.size_bytes + second.result.size_bytes
    whole = evaluated(source, second.target, SelectedCandidate(folder, size, facts), rule)
    details = whole.result.details | {"name": f"{whole.result.details['name']}, cascade"}
    parameters = first.result.parameters + second.result.parameters
    result = replace(whole.result, parameters=parameters, details=details)
    return replace(whole, result=result, golden=(*whole.golden, *_unsure_words(first, routing)))


def _unsure_words(first: Artifact, routing: Routing) -> list[str]:
    """Return a word of the demo sentences that goes on to the transformer, so that golden scores cover both parts.

    Returns an empty list if there is none.
    """
    words = sorted({word for sentence in DEMO_SENTENCES for word in sentence.split()})
    apart = margins(first.model.predict_logits(words), routing.shifts)
    nearest = int(apart.argmin())
    return [words[nearest]] if apart[nearest] < routing.margin else []


def _summary(chosen: dict[str, Any], test: dict[str, Any], ngram_ms: float, transformer_ms: float) -> str:
    """Return one line on what the cascade does."""
    return (
        f"cascade: {100 * chosen['share']:.0f} % of the validation texts and {100 * test['share']:.0f} % of the test "
        f"texts go on to the transformer; mean latency {test['mean_ms']:.3f} ms (n-gram student {ngram_ms:.3f} ms, "
        f"transformer {transformer_ms:.3f} ms)"
    )


def _mean_latencies(first: Artifact, second: Artifact) -> tuple[float, float]:
    """Return the mean latency of both parts in milliseconds, timed in turns on one thread."""
    texts = second.source.corpus.take(second.source.corpus.rows("validation"))
    timed = [texts[i] for i in fixed_order(texts)[:TIMED]]
    models = [part.target.load(part.folder, threads=1) for part in (first, second)]
    with working("cascade: timing both parts"):
        ngram_ms, transformer_ms = times_in_turns(models, timed).mean(axis=0).tolist()
    return ngram_ms, transformer_ms


def _write_folder(first: Artifact, second: Artifact, routing: Routing, rule: DecisionRule, folder: Path) -> None:
    """Write the cascade: the n-gram part with the loader and settings of the whole, the transformer in a subfolder."""
    shutil.copytree(first.folder, folder)
    shutil.copytree(second.folder, folder / SECOND, ignore=shutil.ignore_patterns(LOADER_FILE, REQUIREMENTS_FILE))
    config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    config |= {"model_type": CASCADE, "cascade": routing.as_dict()} | rule.as_dict()
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / LOADER_FILE).write_text(second.target.loader(CASCADE), "utf-8", newline="\n")


def _source(first: Artifact, second: Artifact, routing: Routing) -> Source:
    """Return the source of the whole: its predictions are those of the same cascade in single precision.

    The package is also compared with both of its parts.
    """
    source = second.source
    rows = source.predictions.rows
    logits = routing.logits(first.source.predictions.of(rows), source.predictions.of(rows))
    parts = [
        Contender(f"n-gram student alone, {first.target.name}", first.predictions, first.result.rule),
        Contender(f"transformer alone, {second.target.name}", second.predictions, second.result.rule),
    ]
    return replace(source, predictions=Predictions(rows, logits.astype(np.float32)), beside=[*source.beside, *parts])


def _refuse_loss(whole: Artifact, max_drop: float, force: bool) -> None:
    """Raise NothingPasses if the whole loses too much macro-F1 against the same cascade in single precision."""
    corpus, rows = whole.source.corpus, whole.source.corpus.rows("validation")
    before, after = (
        whole.result.rule.predict(softmax(predictions.of(rows).astype(np.float64)))
        for predictions in (whole.source.predictions, whole.predictions)
    )
    if not force and loses_too_much(corpus.labels[rows], before, after, len(corpus.label_names), max_drop):
        facts = whole.result.details["gate"] | {"ships": None}
        problem = "the cascade of both parts loses more than --max-drop; package it anyway"
        raise NothingPasses(whole.target.name, facts, problem)

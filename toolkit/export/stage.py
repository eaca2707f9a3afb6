"""The export stage: a classifier in, a verified and measured package out."""

import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporters.onnx_fp32 import export_graph
from exporters.onnx_int8 import VNNI
from exporters.registry import Evidence, Exporter, LoadedArtifact, exporter
from toolkit import package
from toolkit.config.export_settings import NGRAM_TARGETS, ExportSettings
from toolkit.data.corpus import Corpus
from toolkit.data.demo import DEMO_SENTENCES
from toolkit.evaluation.comparison import Contender, versus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictions import Predictions, evaluate, rule_on
from toolkit.evaluation.predictor import Predictor
from toolkit.evaluation.reliability.scaling import ScalingChoice
from toolkit.evaluation.standing import standing_in, standing_of
from toolkit.export.candidates import batch_invariance
from toolkit.export.figures import figures_of
from toolkit.export.model_card import write_card
from toolkit.export.reliability.abstaining import draw_risk
from toolkit.export.reliability.calibrated import scaled, scaling_for
from toolkit.export.reliability.calibration_facts import calibration_facts, draw_reliability
from toolkit.export.reliability.checks import checks_of
from toolkit.export.reliability.described import read_description
from toolkit.export.reliability.forgotten import slice_reports
from toolkit.export.search import SelectedCandidate, choose
from toolkit.latency.measure import median_latency_ms
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import PAD_ID, NgramConfig, NgramNetwork, character_tokenizer
from toolkit.modeling.tokenizer import truncation_of
from toolkit.modeling.vocabulary_trimming import Trimming
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.result import StageResult
from toolkit.stages.results_table import Row
from toolkit.utils.console import say, working
from toolkit.utils.errors import CannotExport, InputError, NothingPasses
from toolkit.utils.files import PARTIAL, folder_size, whole_folder
from toolkit.utils.locks import locked
from toolkit.utils.machine import describe_machine
from toolkit.utils.overwrite import refuse_folder
from toolkit.utils.scratch import remove_folder, scratch_folder

TORCH_ORIGINAL = "original (torch fp32)"
"""Name of the exported classifier in comparisons with its package."""
CALIBRATION_TEXTS = 128
"""Number of training texts for calibrating activation ranges; drawn at random because rows may be sorted."""


@dataclass(frozen=True)
class Source:
    """The classifier to export and its context."""

    classifier: Classifier
    name: str
    corpus: Corpus
    predictions: Predictions
    """Predictions of the classifier in torch on validation and test rows."""
    lineage: dict[str, Any]
    """Where the classifier comes from, for manifest and model card."""
    rows: list[Row]
    """Rows to show above the package in the results table: linear baseline, teacher, the classifier in torch."""
    beside: list[Contender]
    """Models to compare the artifact with on the same rows, in addition to the classifier in torch."""
    pruned: str | None = None
    """Tag of the pruning; None if the classifier is not pruned."""
    trimming: Trimming | None = None
    """The trimming of the vocabulary, which changes no prediction on the corpus; None if there was none."""
    linear: Predictor | None = None
    """The linear baseline, for texts that it has no predictions of; None if it is not at hand."""


@dataclass(frozen=True, eq=False)
class Artifact:
    """The selected candidate of a classifier, loaded and run on validation and test rows."""

    source: Source
    target: Exporter
    choice: SelectedCandidate
    rule: DecisionRule
    name: str
    """Name in tables."""
    parameters: int
    model: LoadedArtifact
    predictions: Predictions
    golden: tuple[str, ...] = tuple(DEMO_SENTENCES)
    """Texts whose scores `hbt verify` computes again."""
    scaling: ScalingChoice | None = None
    """The scaling of the logits that is in the classifier; None for a cascade, whose parts have one each."""
    checks: dict[str, Any] = field(default_factory=dict)
    """See `toolkit.export.reliability.checks`."""


def compress(
    source: Source, export: ExportSettings, out: Path, force: bool = False, tuned: Classifier | None = None
) -> tuple[StageResult, Predictions]:
    """Select a candidate of the target, evaluate it and write it as the package folder `out`.

    force: package the candidate that loses least if none passes the quality gate, and a selected one that is near
      chance or worse than the linear baseline.
    tuned: the classifier after quantization-aware training.
    Returns: the result, and the predictions of the artifact on validation and test rows.
    Raises: CannotExport if the target is not available or does not support this classifier; NothingPasses.
    """
    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.parent) as scratch:
        artifact = checked(make_artifact(source, export, scratch, force, tuned), export)
        return write_package(artifact, out, force, started), artifact.predictions


def make_artifact(
    source: Source, export: ExportSettings, scratch: Path, force: bool, tuned: Classifier | None = None
) -> Artifact:
    """Select a candidate of the target and run it. See `compress` for arguments and errors.

    scratch: folder for all candidates.
    """
    target = exporter(export.target)
    reason = target.available()
    if reason is not None:
        raise CannotExport(reason)
    rule = source.classifier.rule or rule_on(source.corpus, source.predictions).rule
    source, tuned, scaling = _calibrated(replace(source, classifier=source.classifier.with_rule(rule)), tuned)
    rule = source.classifier.rule or rule
    choice = choose(target, source.classifier, _evidence(source.corpus, rule), export, scratch, force, tuned)
    return replace(loaded_artifact(source, target, choice, rule), scaling=scaling)


def _calibrated(source: Source, tuned: Classifier | None) -> tuple[Source, Classifier | None, ScalingChoice]:
    """Return a source whose classifier and predictions are calibrated, the tuned classifier as well, and the choice.

    No label changes. The stages before the export keep their logits, which students are trained on.
    """
    corpus, predictions = source.corpus, source.predictions
    found = scaling_for(source.classifier, predictions, corpus)
    calibrated = replace(
        source,
        classifier=scaled(source.classifier, found.scaling),
        predictions=Predictions(predictions.rows, found.scaling.apply(predictions.logits)),
    )
    return calibrated, None if tuned is None else scaled(tuned, found.scaling), found


def loaded_artifact(source: Source, target: Exporter, choice: SelectedCandidate, rule: DecisionRule) -> Artifact:
    """Load a candidate and run it on validation and test rows."""
    model, rows = target.load(choice.folder), source.predictions.rows
    with working(f"{target.name}: evaluating on {len(rows)} rows"):
        predictions = Predictions(rows, model.predict_logits(source.corpus.take(rows)))
    name = target.name if source.pruned is None else f"{target.name}, pruned {source.pruned}"
    return Artifact(source, target, choice, rule, name, source.classifier.parameters, model, predictions)


def checked(artifact: Artifact, export: ExportSettings) -> Artifact:
    """Return the artifact with the facts of its checks. Raises: InputError, see `checks_of`."""
    own, source = Contender(artifact.name, artifact.predictions, artifact.rule), artifact.source
    found = checks_of(source.corpus, own, artifact.model, source.linear, export, artifact.choice.folder)
    licenses = {"license": export.license, "data_license": export.data_license}
    lineage = source.lineage | {name: value for name, value in licenses.items() if value is not None}
    return replace(artifact, checks=found, source=replace(source, lineage=lineage))


def write_package(artifact: Artifact, out: Path, force: bool, started: float) -> StageResult:
    """Evaluate an artifact and write the package folder `out`.

    started: start of the stage, `time.monotonic()` in seconds.
    Raises: NothingPasses for an artifact that is near chance or worse than the linear baseline, unless `force`.
    """
    result = _evaluate(artifact)
    standing = standing_in(result.details)
    if standing is not None and standing.needs_force and not force:
        facts = result.details["gate"] | {"ships": None}
        problem = f"the selected candidate is {standing.problem}; package it anyway"
        raise NothingPasses(artifact.target.name, facts, problem)
    remove_folder(out.with_name(out.name + PARTIAL))  # left by an interrupted export
    with whole_folder(out) as partial:
        shutil.copytree(artifact.choice.folder, partial, dirs_exist_ok=True)
        result = _finish_package(artifact, result, partial)
    details = result.details | {"package": out.as_posix(), "package_size_bytes": folder_size(out)}
    return replace(result, seconds=time.monotonic() - started, details=details)


def _evidence(corpus: Corpus, rule: DecisionRule) -> Evidence:
    """Return the rows for selecting a candidate: a sample of the training texts and all validation rows."""
    train, validation = corpus.rows("train"), corpus.rows("validation")
    sample = np.random.default_rng(corpus.settings.seed).permutation(len(train))[:CALIBRATION_TEXTS]
    return Evidence(corpus.take(train[np.sort(sample)]), corpus.take(validation), corpus.labels[validation], rule)


def rows_of(result: StageResult) -> list[Row]:
    """Return the rows of an exported artifact for the results table: all test rows, then each slice."""
    name = result.details["name"]
    latency, standing = result.details["p50_ms"], standing_in(result.details)
    kind = "Quantized" if result.stage == "quantization" else "Exported"
    own = Row(name, result.metrics, result.size_bytes, result.parameters, latency, kind=kind, standing=standing)
    return [own, *(Row(name, metrics, slice=part, kind=kind) for part, metrics in result.slices.items())]


def _evaluate(artifact: Artifact) -> StageResult:
    """Return the result of an artifact on validation and test rows."""
    source, target, rule, predictions = artifact.source, artifact.target, artifact.rule, artifact.predictions
    corpus, texts = source.corpus, source.corpus.take(predictions.rows)
    with working(f"{target.name}: scoring in batches"):
        invariance = batch_invariance(artifact.model, texts, predictions.logits)
    validation, test, slices = evaluate(corpus, predictions, rule)
    cut = truncation_of(source.classifier.tokenizer, corpus.take(corpus.rows("test")))
    own = Contender(target.name, predictions, rule)
    original = Contender(TORCH_ORIGINAL, source.predictions, rule)
    linear = next((each for each in source.beside if each.name == LINEAR_BASELINE_NAME), None)
    return StageResult(
        stage="export" if target.promise == "same" else "quantization",
        checkpoint=target.file,
        metrics=test,
        validation_metrics=validation,
        rule=rule,
        parameters=artifact.parameters,
        size_bytes=artifact.choice.size_bytes,
        seconds=0.0,
        slices=slices,
        details=artifact.choice.facts
        | ({} if source.trimming is None else {"trimming": asdict(source.trimming)})
        | ({} if cut is None else {"truncation": asdict(cut)})
        | artifact.checks
        | ({} if linear is None else {"standing": asdict(standing_of(corpus, own, linear))})
        | {
            "target": target.name,
            "name": artifact.name,
            "invariance": invariance,
            "versus": [asdict(versus(corpus, own, other)) for other in (original, *source.beside)],
            "calibration": calibration_facts(corpus, own, artifact.scaling, source.beside),
            "forgotten": slice_reports(corpus, own, original, source.beside),
        },
    )


def _finish_package(artifact: Artifact, result: StageResult, folder: Path) -> StageResult:
    """Measure latency, then write model card and manifest."""
    source, target = artifact.source, artifact.target
    machine = describe_machine()
    golden = package.golden_scores(artifact.model, list(artifact.golden))
    this_cpu_only = artifact.choice.facts["gate"]["this_cpu_only"]
    # The worker can only load a package with a manifest; it is written again after the model card.
    package.write_manifest(folder, target, machine.isa, source.lineage, golden, this_cpu_only)
    with working(f"{target.name}: measuring latency"):
        latency = median_latency_ms("package", folder, source.corpus.take(source.corpus.rows("test")))
    result = replace(result, details=result.details | {"p50_ms": latency})
    rows = [*source.rows, *rows_of(result)]
    draw_reliability(result.details["calibration"], folder)
    if "abstention" in result.details:
        draw_risk(result.details["abstention"], folder)
    write_card(folder, source.name, source.corpus, rows, result, source.lineage, machine, target.needs(folder))
    evaluation = figures_of(result, rows, source.corpus)
    package.write_manifest(folder, target, machine.isa, source.lineage, golden, this_cpu_only, evaluation)
    return result


def lineage_of(corpus: Corpus, **more: Any) -> dict[str, Any]:
    """Return the origin for a manifest: enough to rebuild the same test rows from the same file."""
    settings = asdict(corpus.settings)
    return {"corpus": corpus.name, "corpus_fingerprint": corpus.fingerprint, "corpus_settings": settings} | more


FALLBACK_FOR, FALLBACK = "onnx-int8", "torch-int8"
"""The target that falls back, and its replacement for classifiers that cannot be exported to ONNX."""


NO_ROWS = Evidence([], [], np.zeros(0, dtype=np.int64), DecisionRule())
"""For asking a target whether it supports a classifier."""


def compress_or_fall_back(
    source: Source, export: ExportSettings, out: Path, force: bool, tuned: Classifier | None
) -> tuple[StageResult, Predictions]:
    """Run `compress`, with torch-int8 instead of onnx-int8 for a classifier that cannot be exported to ONNX.

    Raises: InputError for any other target if the classifier cannot be exported to it.
    """
    try:
        return compress(source, export, out, force, tuned)
    except CannotExport as error:
        if export.target != FALLBACK_FOR:
            fix = f"use --target {FALLBACK}"
            raise InputError(f"--target {export.target}: cannot export this classifier ({error}); {fix}") from error
        say(f"{export.target}: cannot export this classifier ({error}); using {FALLBACK} instead")
    fallback = replace(export, target=FALLBACK, quant_method=None, quant_dtype=None)
    other = fallback_folder(out)
    # The caller has locked `out`.
    with nullcontext() if other == out else locked(other, "give another path with -o"):
        refuse_folder(other, force, "package")
        return compress(source, fallback, other, force)


def refuse_fallback(classifier: Classifier, export: ExportSettings, out: Path, force: bool) -> None:
    """Raise InputError if the target is for n-gram students only and this is a transformer, or if this classifier needs
    the fallback target and the folder of that package cannot be written.

    The classifier is exported on trial, before a training, but only if that folder exists.
    """
    if export.target in NGRAM_TARGETS:
        exporter(export.target).candidates(classifier, NO_ROWS, export, Path())
    place = fallback_folder(out)
    if export.target != FALLBACK_FOR or not os.path.lexists(place):
        return
    try:
        if exporter(FALLBACK_FOR).available() is None:
            with scratch_folder() as scratch:
                export_graph(classifier, scratch / "trial.onnx")
            return
    except CannotExport:
        pass
    refuse_folder(place, force, "package")


def fallback_folder(out: Path) -> Path:
    """Return the package folder for the fallback target, named after that target."""
    return out.with_name(out.name.replace(FALLBACK_FOR, FALLBACK))


def refuse_for_ngram(export: ExportSettings) -> None:
    """Raise InputError if the target does not support an ngram student, before one is trained."""
    untrained = Classifier(NgramNetwork(NgramConfig(2, 1)), character_tokenizer([""]), PAD_ID, ("0", "1"))
    if export.quant_method == "qat":
        raise InputError(
            "--quant-method qat: an ngram student has no layers for quantization-aware training; leave it out"
        )
    exporter(export.target).candidates(untrained, NO_ROWS, export, Path())


def refuse_unready(export: ExportSettings) -> None:
    """Raise InputError if the target is unknown, or if it is not available here and has no fallback.

    Also if eight-bit weights are asked for on a processor that does not need them or computes wrong scores with them.
    """
    if export.this_cpu_only and not set(VNNI) & set(describe_machine().flags):
        raise InputError("--this-cpu-only: this processor has no VNNI, so eight-bit weights gain nothing; leave it out")
    if export.describe is not None:
        read_description(export.describe)
    if export.functional_tests is not None and not Path(export.functional_tests).is_file():
        raise InputError(f"--functional-tests {export.functional_tests}: no such file; give a table, or leave it out")
    reason = exporter(export.target).available()
    if reason is not None and export.target != FALLBACK_FOR:
        raise InputError(f"--target {export.target}: {reason}")

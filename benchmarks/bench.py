"""`hbt bench`: compare packages with the linear baseline and the teacher on their test rows."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.against import Change, as_records, changes, read_earlier, show
from benchmarks.device import read_device, with_metrics
from benchmarks.limit.parts import parts_of
from benchmarks.page import write_page
from benchmarks.plot import plot
from toolkit import package
from toolkit.config.toml_file import recipe_of
from toolkit.data.corpus import Corpus
from toolkit.data.moved import same_corpus
from toolkit.evaluation.metrics import metrics_with_rule
from toolkit.evaluation.predictor import Predictor, rule_of
from toolkit.latency.foreign import ONNX, PYTHON, Function, is_foreign
from toolkit.latency.limits import CpuTarget, refuse_impossible
from toolkit.latency.measure import Measurement, Subject, labels_elsewhere, measure
from toolkit.latency.scenarios import ONE_BY_ONE, SINGLE_STREAM, Scenario
from toolkit.latency.worker import load_predictor
from toolkit.manifest import MANIFEST_FILE, read_manifest
from toolkit.modeling import linear
from toolkit.modeling.classifier import WEIGHTS_FILE
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.run_folder import LINEAR_BASELINE, Run, checkpoint_of, is_run
from toolkit.training.linear_fit import fit_linear
from toolkit.utils.console import console, say
from toolkit.utils.errors import InputError, require
from toolkit.utils.files import folder_size
from toolkit.utils.machine import busy_share, describe_machine, usable_cores
from toolkit.utils.overwrite import refuse_no_folder
from toolkit.utils.scratch import scratch_folder

TEACHER = "teacher (torch fp32)"
MAX_THREADS = 1024
MAX_P99_MS = 60_000
BUSY = 0.25
"""Share of the CPUs in use by other processes above which latencies are doubtful."""


@dataclass(frozen=True)
class Output:
    """Where a measurement goes: always NAME.json, NAME.csv, NAME.svg and NAME.png."""

    folder: Path
    quiet: bool = False
    """Print no table."""
    page: bool = False
    """Also write NAME.html."""
    earlier: Path | None = None
    """JSON file of an earlier measurement to compare with."""


@dataclass(frozen=True)
class Conditions:
    """How models are measured, besides the number of threads."""

    scenario: Scenario = ONE_BY_ONE
    target: CpuTarget | None = None
    """A machine to imitate."""


USUAL = Conditions()


def bench_packages(
    folders: list[Path],
    data: str | None,
    teacher: Path | None,
    threads: int,
    output: Output,
    devices: Sequence[Path] = (),
    conditions: Conditions = USUAL,
) -> tuple[Path, list[Change]]:
    """Measure packages of one corpus, the linear baseline and the teacher.

    Return the JSON file, and what changed since the earlier measurement.
    folders: packages, and among them models that hbt did not make (see `toolkit.latency.foreign`).
    devices: files printed by `python how_to_load.py --bench` on other machines, each of one of the packages.
    Raises: InputError if a folder is not a package, the packages have different corpora, the data are missing, or a
        file in `devices` is malformed or of another package, or the earlier measurement cannot be read.
    """
    require(1 <= threads <= MAX_THREADS, "--threads", f"{threads} is outside 1 to {MAX_THREADS}")
    scenario, target = conditions.scenario, conditions.target
    problem = f"{scenario.p99_ms:g} is outside 0 to {MAX_P99_MS:,}; give milliseconds"
    require(0 < scenario.p99_ms <= MAX_P99_MS, "--p99-ms", problem)
    out = output.folder
    refuse_no_folder(out, "-o")
    before = None if output.earlier is None else read_earlier(output.earlier)
    teacher = None if teacher is None else _teacher_checkpoint(teacher)
    foreign = [_foreign_subject(str(folder)) for folder in folders if is_foreign(str(folder))]
    folders = [folder for folder in folders if not is_foreign(str(folder))]
    require(bool(folders), "PACKAGES", "give one package at least: its corpus has the rows to measure on")
    fingerprints = {_lineage(folder)["corpus_fingerprint"] for folder in folders}
    if len(fingerprints) > 1:
        raise InputError("the packages are from different corpora; measure the packages of one corpus at a time")
    elsewhere = [read_device(file, folders) for file in devices]
    corpus = corpus_of(folders[0], data)
    for subject in foreign:
        _predictor(subject, corpus)  # fails before anything is measured
    machine, busy = describe_machine(), busy_share()
    if target is not None:
        refuse_impossible(target, machine, {read_manifest(folder)["runtime"]["name"] for folder in folders})
    if busy > BUSY:
        say(f"other processes use {busy:.0%} of the CPUs, so latencies will be too long; measure on a quiet machine")
    with scratch_folder() as scratch:
        subjects = [*subjects_of(folders, teacher, corpus, scratch), *foreign]
        measurements = bench(subjects, corpus, threads, say, conditions)
    measurements += [with_metrics(device, measurements) for device in elsewhere]
    reference = subjects[0].name
    rows = report.table(measurements, reference)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{_stem(folders[0].name, threads, conditions)}.json"
    changed = [] if before is None else changes(before[0], measurements)
    report.write_json(measurements, machine, reference, file, busy, as_records(changed), target=target)
    report.write_csv(rows, file.with_suffix(".csv"))
    pictured = [each for each in measurements if each.machine is None or scenario.name == SINGLE_STREAM]
    plot(pictured, file.with_suffix(".svg"))
    imitated = None if target is None else f"{target.name}, {target.description}"
    if output.page:
        svg = file.with_suffix(".svg").read_text("utf-8")
        write_page(rows, measurements, machine, reference, svg, file.with_suffix(".html"), imitated)
    if not output.quiet:
        console().print(report.render(rows, machine, reference, imitated))
        if before is not None and output.earlier is not None:
            show(changed, before[1], machine, output.earlier)
        print(f"\nwritten: {file}, .csv, .svg{', .html' * output.page} and .png")
    return file, changed


def _stem(name: str, threads: int, conditions: Conditions) -> str:
    """Return the name of the files without its suffix."""
    scenario = conditions.scenario.name
    more = "" if scenario == SINGLE_STREAM else f"-{scenario}"
    more += "" if conditions.target is None else f"-{conditions.target.name}"
    return f"{name}-{threads}-thread{'s' * (threads > 1)}{more}"


def _foreign_subject(given: str) -> Subject:
    kind, _, place = given.partition(":")
    if kind == PYTHON:
        return Subject(given, PYTHON, Path(place), 0)
    return Subject(Path(place).name, ONNX, Path(place), folder_size(Path(place)))


def _teacher_checkpoint(teacher: Path) -> Path:
    """Return the checkpoint folder of --teacher: itself, or that of a run. Raises: InputError if it is neither."""
    checkpoint = checkpoint_of(teacher)
    if not (checkpoint / WEIGHTS_FILE).is_file():
        raise InputError(f"--teacher {teacher}: not a checkpoint folder (no {WEIGHTS_FILE}); give one, or a run")
    return checkpoint


def corpus_of(folder: Path, data: str | None) -> Corpus:
    """Return the corpus of a package with the same split, so that its test rows were not trained on.

    data: path of the data file if it has moved.
    Raises: InputError if the file is missing or has changed: then the split is not known.
    """
    lineage = _lineage(folder)
    try:
        wanted = recipe_of(None, lineage["corpus_settings"]).corpus
    except InputError as error:
        raise InputError(f"{folder / MANIFEST_FILE}: corpus_settings: {error}") from None
    run = lineage.get("run")
    return same_corpus(wanted, lineage["corpus_fingerprint"], folder, data, [Path(run)] if run else [])


def _lineage(folder: Path) -> dict[str, Any]:
    """Return the origin of a package. Raises: InputError if its manifest does not state its corpus."""
    lineage = package.read_manifest(folder)["lineage"]
    if not lineage.keys() >= {"corpus_fingerprint", "corpus_settings"}:
        raise InputError(
            f"{folder}: its manifest does not state its corpus, so no test rows are known; package it again"
        )
    return lineage


def subjects_of(folders: list[Path], teacher: Path | None, corpus: Corpus, scratch: Path) -> list[Subject]:
    """Return the teacher (if available), the linear baseline, then the packages.

    scratch: folder for a new linear baseline if the run of the first package is missing.
    """
    run = _run_of(folders[0], corpus)
    subjects = []
    checkpoint = teacher or (run.teacher_checkpoint if run is not None else None)
    if checkpoint is None:
        say("no teacher to compare with: the run of the package is missing; give a checkpoint with --teacher FOLDER")
    else:
        size = (checkpoint / WEIGHTS_FILE).stat().st_size if (checkpoint / WEIGHTS_FILE).is_file() else 0
        subjects.append(Subject(TEACHER, "checkpoint", checkpoint, size))
    fitted = scratch if run is None else run.folder / LINEAR_BASELINE
    if run is None:
        say("fitting the linear baseline")
        linear.save(fit_linear(corpus).model, scratch)
    linear_bytes = sum(file.stat().st_size for file in fitted.glob("floor.*"))
    subjects.append(Subject(LINEAR_BASELINE_NAME, "linear", fitted, linear_bytes))
    return subjects + [Subject(folder.name, "package", folder, folder_size(folder)) for folder in folders]


def _run_of(folder: Path, corpus: Corpus) -> Run | None:
    """Return the run that a package is from; None if it is missing or has different rows than `corpus`.

    The models of a different run with the same name may have been trained on these test rows.
    """
    origin = Path(package.read_manifest(folder)["lineage"].get("run", ""))
    if not origin.name or not is_run(origin):
        return None
    run = Run.open(origin)
    return run if run.fingerprint == corpus.fingerprint and LINEAR_BASELINE in run.results else None


def bench(
    models: Sequence[Subject],
    corpus: Corpus,
    threads: int = 1,
    progress: Callable[[str], None] = lambda line: None,
    conditions: Conditions = USUAL,
    budget_s: float = 60.0,
) -> list[Measurement]:
    """Return latency, memory, size and accuracy of each model on the test rows of `corpus`.

    budget_s: time limit of the latency pass of a model.
    Raises: InputError if the labels of a model differ from those of the corpus; RuntimeError if a worker fails.
    """
    test = corpus.rows("test")
    scenario, target = conditions.scenario, conditions.target
    measured = measure(models, corpus.take(test), threads, progress, budget_s, scenario=scenario, target=target)
    found = []
    for model, measurement in zip(models, measured, strict=True):
        progress(f"{model.name}: accuracy on {len(test)} test rows")
        metrics, slices = accuracy(_predictor(model, corpus), corpus, test)
        parts = parts_of(model)
        found.append(dataclasses.replace(measurement, metrics=metrics, slices=slices, parts_bytes=parts))
    return found


def _predictor(model: Subject, corpus: Corpus) -> Predictor:
    if model.interpreter is not None:
        return Function(corpus.label_names, lambda texts: labels_elsewhere(model, texts, usable_cores()))
    return load_predictor(model.kind, model.path, usable_cores(), corpus.label_names)


def accuracy(
    predictor: Predictor, corpus: Corpus, rows: np.ndarray
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return metrics on `rows` of `corpus` at the decision rule of the predictor, and the same for each slice.

    Raises: InputError if the labels of the predictor differ from those of the corpus.
    """
    if tuple(predictor.labels) != corpus.label_names:
        raise InputError(
            f"the model's labels are {', '.join(predictor.labels)}, those of {corpus.name} are "
            f"{', '.join(corpus.label_names)}; give models with these labels"
        )
    probabilities = predictor.predict_proba(corpus.take(rows))  # (rows, labels)

    def metrics(mask: np.ndarray) -> dict[str, float]:
        return metrics_with_rule(corpus.labels[rows][mask], probabilities[mask], rule_of(predictor), corpus.label_names)

    parts = {name: metrics(mask[rows]) for name, mask in corpus.slices.items() if mask[rows].any()}
    return metrics(np.ones(len(rows), dtype=bool)), parts

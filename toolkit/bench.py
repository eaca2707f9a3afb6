"""`hbt bench`: a package beside the floor and the teacher it came from, on its own test rows."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import floor as floor_model
from benchmarks import report
from benchmarks.machine import describe_machine
from benchmarks.plot import plot
from benchmarks.run import Subject, bench
from toolkit import package
from toolkit.classifier import WEIGHTS_FILE
from toolkit.corpus import Corpus, load_corpus
from toolkit.display import console
from toolkit.errors import InputError
from toolkit.progress import say
from toolkit.recipe import CorpusSettings
from toolkit.runs import FLOOR, RECIPE_FILE, recorded_fingerprint, teacher_checkpoint
from toolkit.stage import RESULT_FILE, folder_size

TEACHER = "teacher (torch fp32)"
FLOOR_NAME = "linear baseline"


def bench_packages(
    folders: list[Path], data: str | None, teacher: Path | None, threads: int, out: Path, quiet: bool
) -> Path:
    """Measure packages of one corpus beside floor and teacher, print the table unless `quiet`, and write
    NAME.json, NAME.csv, NAME.svg and NAME.png into `out`; returns the JSON file.

    Raises: InputError if a folder is no package, the packages have different corpora, or the data are gone.
    """
    fingerprints = {package.read_manifest(folder)["lineage"]["corpus_fingerprint"] for folder in folders}
    if len(fingerprints) > 1:
        raise InputError("the packages come from different corpora; measure those of one corpus at a time")
    corpus = corpus_of(folders[0], data)
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="hbt-floor-") as scratch:
        subjects = subjects_of(folders, teacher, corpus, Path(scratch))
        measurements = bench(subjects, corpus, threads, say)
    reference = subjects[0].name
    rows = report.table(measurements, reference)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{folders[0].name}-{threads}-thread{'s' * (threads > 1)}.json"
    report.write_json(measurements, machine, reference, file)
    report.write_csv(rows, file.with_suffix(".csv"))
    plot(measurements, file.with_suffix(".svg"))
    if not quiet:
        console().print(report.render(rows, machine, reference))
        print(f"\nwritten: {file}, .csv, .svg and .png")
    return file


def corpus_of(folder: Path, data: str | None) -> Corpus:
    """The corpus that a package was made from, split as then, so that its test rows are again unseen rows.

    data: where the file lies now, if not where it lay.
    Raises: InputError if the file is gone, or is another one: then nobody knows which rows were learned.
    """
    lineage = package.read_manifest(folder)["lineage"]
    settings: dict[str, Any] = lineage["corpus_settings"] | ({"data": data} if data else {})
    lists = {name: tuple(settings[name]) for name in ("label_names", "slice")}
    wanted = CorpusSettings(**settings | lists)
    if wanted.data != "demo" and not Path(wanted.data).is_file():
        raise InputError(f"{folder}: its data {wanted.data} are not here; say where they are with --data FILE")
    corpus = load_corpus(wanted)
    if corpus.fingerprint != lineage["corpus_fingerprint"]:
        raise InputError(
            f"{wanted.data}: not the rows that {folder} was made from (another fingerprint), so its test rows are not "
            "known; give that file with --data"
        )
    return corpus


def subjects_of(folders: list[Path], teacher: Path | None, corpus: Corpus, scratch: Path) -> list[Subject]:
    """Teacher (if there is one), floor, then the packages. scratch: where a floor may be fitted anew."""
    lineage = package.read_manifest(folders[0])["lineage"]
    run = Path(lineage["run"]) if "run" in lineage else None
    if run is not None and recorded_fingerprint(run) != corpus.fingerprint:
        run = None  # another run of that name: its models may have learned from these test rows
    subjects = []
    checkpoint = teacher or (teacher_checkpoint(run) if run and (run / RECIPE_FILE).is_file() else None)
    if checkpoint is None:
        say("no teacher to compare with: its run is not here; name a checkpoint with --teacher FOLDER")
    else:
        size = (checkpoint / WEIGHTS_FILE).stat().st_size if (checkpoint / WEIGHTS_FILE).is_file() else 0
        subjects.append(Subject(TEACHER, "checkpoint", checkpoint, size))
    fitted = run / FLOOR if run and (run / FLOOR / RESULT_FILE).is_file() else scratch
    if fitted == scratch:
        say("fitting the floor")
        floor_model.save(floor_model.fit_floor(corpus), scratch)
    floor_bytes = sum(file.stat().st_size for file in fitted.glob("floor.*"))
    subjects.append(Subject(FLOOR_NAME, "floor", fitted, floor_bytes))
    return subjects + [Subject(folder.name, "package", folder, folder_size(folder)) for folder in folders]

"""Train the peers on the rows of a package, and measure all of them beside it in one bench.

    pip install 'hbt-toolkit[peers]'
    python -m benchmarks.peers PACKAGE [PACKAGE …] --encoder ENCODER --student RUN --out peers

All packages must be of one corpus. Every peer is trained on its training rows and chooses its settings on its
validation rows; what is trained is kept in OUT, and not trained again. Peers that compress start from the teacher of
the packages. The bench is that of `hbt bench`: teacher, linear baseline and packages are in it, each model in rounds of
fresh processes on one thread, Python to Python. A peer that cannot be trained is in the notes.
"""

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.bench import BUSY, bench, corpus_of, subjects_of
from benchmarks.peers.common import Given, Missing, Rows, rows_of
from benchmarks.peers.compressed.teacher import write_parts
from benchmarks.peers.registry import PEERS
from benchmarks.peers.training import facts_of, train_peer
from benchmarks.plot import plot
from toolkit.data.corpus import Corpus
from toolkit.latency.measure import Measurement, Subject
from toolkit.modeling.classifier import WEIGHTS_FILE
from toolkit.stages.run_folder import checkpoint_of
from toolkit.utils.console import console, say
from toolkit.utils.errors import InputError, require
from toolkit.utils.files import file_part, folder_size, write_lines
from toolkit.utils.machine import Machine, busy_share, describe_machine

TEACHER_PARTS = "teacher"
BUDGET_S = 30.0
"""Seconds for the latencies of a model, over all rounds; a pass of its throughput gets a third of a round's share."""


def main() -> None:
    given = _arguments()
    pythons = _pythons(given.python)
    corpus = corpus_of(given.packages[0], given.data)
    given.out.mkdir(parents=True, exist_ok=True)
    own = subjects_of(given.packages, _checkpoint(given.teacher), corpus, given.out / "linear")
    names, notes = given.only or list(PEERS), []
    start = _start(given, own, rows_of(corpus))
    for name in names:
        say(f"{name}: training, unless it is there")
        reason = train_peer(name, rows_of(corpus), given.out, start, pythons.get(PEERS[name].environment or ""))
        notes += [] if reason is None else [f"{name}: {reason}"]
    trained = [name for name in names if (given.out / name).exists()]
    if given.train_only:
        _print_notes(notes)
        return
    machine, busy = describe_machine(), busy_share()
    if busy > BUSY:
        notes.append(f"other programs used {busy:.0%} of the CPUs at the start: latencies are too long")
    subjects = [dataclasses.replace(subject, path=subject.path.resolve()) for subject in own]
    results = given.results.resolve() if given.results else given.out.resolve()
    with contextlib.chdir(given.out):
        for name in trained:
            python = pythons.get(PEERS[name].environment or "")
            subjects += [_subject(name, model, corpus, python) for model in PEERS[name].models]
        measured = bench(subjects, corpus, 1, say, budget_s=given.budget)
        lines = [line for name in trained for line in _lines(name)]
    results.mkdir(parents=True, exist_ok=True)
    _write(measured, machine, busy, notes, lines, results / f"peers-{corpus.name}-{processor(machine)}")
    _print_notes(notes)


def processor(machine: Machine) -> str:
    """Return name and best int8 instructions of the processor as a part of a file's name."""
    return file_part(f"{machine.cpu} {machine.isa.split()[-1]}").lower().replace("_", "-")


def _start(given: argparse.Namespace, own: Sequence[Subject], rows: Rows) -> Given:
    """Return what the peers start from, with the parts of the teacher."""
    checkpoint = next((subject.path for subject in own if subject.kind == "checkpoint"), None)
    parts = given.out / TEACHER_PARTS
    try:
        if checkpoint is None:
            raise Missing("no teacher")
        write_parts(checkpoint, parts, rows)
    except Missing as reason:
        say(f"no peer that compresses the teacher can run: {reason}")
        return Given(given.encoder, None, given.student)
    return Given(given.encoder, parts, given.student)


def _checkpoint(teacher: Path | None) -> Path | None:
    """Return the checkpoint of --teacher: a folder, or that of a run. Raises: InputError if there is none."""
    found = None if teacher is None else checkpoint_of(teacher)
    if found is not None and not (found / WEIGHTS_FILE).is_file():
        raise InputError(f"--teacher {teacher}: neither a run nor a checkpoint folder; give one of both")
    return found


def _pythons(given: Sequence[str]) -> dict[str, Path]:
    """Return environment -> interpreter from NAME=PYTHON. Raises: InputError for another form, or none there."""
    found = {}
    for each in given:
        name, _, python = each.partition("=")
        known = {peer.environment for peer in PEERS.values()} - {None}
        require(name in known, "--python", f"{each}: give NAME=PYTHON for {' or '.join(sorted(filter(None, known)))}")
        require(Path(python).is_file(), "--python", f"{python}: no such file; give the interpreter of the environment")
        found[name] = Path(python).absolute()  # not resolved: a virtual environment is known by the link
    return found


def _subject(name: str, model: str, corpus: Corpus, python: Path | None) -> Subject:
    """Write the module that a user of the peer would write, into the current folder, and return it as a subject."""
    module = model.replace("-", "_") + "_function"
    lines = [
        "from pathlib import Path",
        f"from benchmarks.peers.{PEERS[name].module} import load",
        f"label = load(Path({str(Path(name).resolve())!r}), {tuple(corpus.label_names)!r}, {model!r})",
    ]
    Path(f"{module}.py").write_text("\n".join(lines) + "\n", "utf-8")
    file = Path(name, PEERS[name].files.get(model, ""))
    size = file.stat().st_size if file.is_file() else folder_size(file)
    return Subject(model, "python", Path(f"{module}.label"), size, python)


def _lines(name: str) -> list[dict[str, Any]]:
    """Return one line per model of a trained peer: settings, validation macro-F1 and the costs of its training."""
    found = facts_of(name, Path())
    return [
        {
            "model": model,
            "validation_macro_f1": round(found["validation"][model], 4),
            "settings": json.dumps(found["settings"].get(model, found["settings"])),
            "seconds": round(found["seconds"], 1),
            "cpu_seconds": round(found["cpu_seconds"], 1),
            "peak_mib": round(found["peak_mib"]),
        }
        for model in PEERS[name].models
    ]


def _write(
    measured: Sequence[Measurement],
    machine: Machine,
    busy: float,
    notes: Sequence[str],
    training: Sequence[dict[str, Any]],
    name: Path,
) -> None:
    """Write NAME.json, NAME.csv, NAME.svg, NAME.png and NAME-training.csv, and print the table."""
    groups = {model: peer.group for peer in PEERS.values() for model in peer.models}
    measured = [dataclasses.replace(each, kind=groups.get(each.name, each.kind)) for each in measured]
    reference = measured[0].name
    rows = report.table(measured, reference)

    def file(ending: str) -> Path:
        return name.with_name(name.name + ending)

    report.write_json(measured, machine, reference, file(".json"), busy, notes=notes)
    report.write_csv(rows, file(".csv"))
    plot(measured, file(".svg"), front=True)
    if training:
        write_lines(training, file("-training.csv"))
    console().print(report.render(rows, machine, reference))
    print(f"written: {file('.json')}, .csv, .svg, .png and -training.csv")


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}")


def _arguments() -> argparse.Namespace:
    description = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=description)
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--encoder", type=Path, help="folder of the pretrained encoder, for model2vec and SetFit")
    parser.add_argument("--student", type=Path, help="run with a student of fewer layers, for FastFormers")
    parser.add_argument("--data", help="data file of the packages, if it was moved")
    parser.add_argument("--teacher", type=Path, help="run or checkpoint of the teacher, if the packages have none")
    parser.add_argument("--python", action="append", default=[], help="optimum=PYTHON: the interpreter with optimum")
    parser.add_argument("--only", nargs="*", choices=PEERS, help="peers to measure (default: all)")
    parser.add_argument("--train-only", action="store_true", help="train the peers and stop before the bench")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for the latencies of a model")
    parser.add_argument("--out", type=Path, default=Path("peers"), help="folder of the trained peers")
    parser.add_argument("--results", type=Path, help="folder of the results (default: OUT)")
    return parser.parse_args()


if __name__ == "__main__":
    main()

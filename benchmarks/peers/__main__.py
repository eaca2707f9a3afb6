"""Train the peers on the rows of a package, and measure all of them beside it in one bench.

    pip install 'hbt-toolkit[peers]'
    python -m benchmarks.peers PACKAGE [PACKAGE …] --encoder ENCODER --out peers

All packages must be of one corpus. Every peer is trained on its training rows and chooses its settings on its
validation rows; what is trained is kept in OUT, and not trained again. The bench is that of `hbt bench`: teacher,
linear baseline and packages are in it, each model in rounds of fresh processes on one thread, Python to Python.
"""

import argparse
import contextlib
import dataclasses
import importlib
import json
import time
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.bench import bench, corpus_of, subjects_of
from benchmarks.peers.common import rows_of
from benchmarks.plot import plot
from toolkit.data.corpus import Corpus
from toolkit.latency.measure import Subject
from toolkit.utils.console import console, say
from toolkit.utils.files import folder_size, whole_folder, write_lines
from toolkit.utils.machine import busy_share, describe_machine

PEERS = {
    "fasttext": ("fasttext", "fasttext-quantized"),
    "vowpal_wabbit": ("vowpal-wabbit",),
    "scikit_learn": ("tfidf-logistic-regression", "tfidf-linear-svc"),
    "static_embeddings": ("model2vec",),
}
"""Module -> its models."""
FILES = {"fasttext": "model.bin", "fasttext-quantized": "model.ftz", "tfidf-logistic-regression": "logistic.skops",
         "tfidf-linear-svc": "svm.skops"}  # fmt: skip
"""The file of a model where its folder has several."""


def main() -> None:
    given = _arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(given.packages[0], given.data)
    trained = {peer: _trained(peer, corpus, given.out, given.encoder) for peer in given.only or PEERS}
    machine, busy = describe_machine(), busy_share()
    own = subjects_of(given.packages, given.teacher, corpus, given.out / "linear")
    subjects = [dataclasses.replace(subject, path=subject.path.resolve()) for subject in own]
    with contextlib.chdir(given.out):
        subjects += [_subject(peer, variant, corpus) for peer in trained for variant in PEERS[peer]]
        measured = bench(subjects, corpus, 1, say)
    name = given.out / f"peers-{corpus.name}"
    reference = subjects[0].name
    rows = report.table(measured, reference)
    report.write_json(measured, machine, reference, name.with_suffix(".json"), busy)
    report.write_csv(rows, name.with_suffix(".csv"))
    plot(measured, name.with_suffix(".svg"))
    write_lines([facts for each in trained.values() for facts in each], name.with_name(f"{name.name}-training.csv"))
    console().print(report.render(rows, machine, reference))


def _trained(peer: str, corpus: Corpus, out: Path, encoder: Path | None) -> list[dict[str, Any]]:
    """Train a peer unless it is there, and return one line per model: settings, validation macro-F1, CPU seconds."""
    folder = out / peer
    if not folder.exists():
        say(f"{peer}: training")
        started, cpu = time.perf_counter(), time.process_time()
        with whole_folder(folder) as partial:
            found = importlib.import_module(f"benchmarks.peers.{peer}").train(rows_of(corpus), partial, encoder)
            found |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
            (partial / "peer.json").write_text(json.dumps(found, indent=2), "utf-8")
    found = json.loads((folder / "peer.json").read_text("utf-8"))
    return [
        {
            "model": variant,
            "validation_macro_f1": round(found["validation"][variant], 4),
            "settings": json.dumps(found["settings"].get(variant, found["settings"])),
            "cpu_seconds": round(found["cpu_seconds"], 1),
        }
        for variant in PEERS[peer]
    ]


def _subject(peer: str, variant: str, corpus: Corpus) -> Subject:
    """Write the module that a user of the peer would write, into the current folder, and return it as a subject."""
    module = variant.replace("-", "_") + "_function"
    lines = [
        "from pathlib import Path",
        f"from benchmarks.peers.{peer} import load",
        f"label = load(Path({str(Path(peer).resolve())!r}), {tuple(corpus.label_names)!r}, {variant!r})",
    ]
    Path(f"{module}.py").write_text("\n".join(lines) + "\n", "utf-8")
    file = Path(peer, FILES.get(variant, ""))
    size = file.stat().st_size if file.is_file() else folder_size(file)
    return Subject(variant, "python", Path(f"{module}.label"), size)


def _arguments() -> argparse.Namespace:
    description = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=description)
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--encoder", type=Path, help="folder of the encoder, for model2vec")
    parser.add_argument("--data", help="data file of the packages, if it was moved")
    parser.add_argument("--teacher", type=Path, help="checkpoint of the teacher, if the run of the packages has none")
    parser.add_argument("--only", nargs="*", choices=PEERS, help="peers to measure (default: all)")
    parser.add_argument("--out", type=Path, default=Path("peers"))
    return parser.parse_args()


if __name__ == "__main__":
    main()

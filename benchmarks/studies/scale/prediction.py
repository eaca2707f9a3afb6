"""Rows per second of `hbt predict` beside a plain Hugging Face pipeline and optimum, on the same texts in one run.

    python -m benchmarks.studies.scale.prediction FILE models/A models/B [--pipeline MODEL] [--optimum-python PYTHON]
        [--engines local spark ray] [--processes 1 2] [--rows 20000] [--sample 500]

hbt labels a CSV of the texts of FILE, repeated up to --rows, with each package, engine and number of processes; its
seconds are those of the whole command, from its start. The pipelines label the first --sample of the same texts, alone
and in batches of 32, on one thread and on two; their loading is not counted. --pipeline is the classifier that a user
without hbt would serve: a folder or hub id in the form of Hugging Face, whose head may be untrained, since only time is
measured. optimum runs the `onnx` packages of transformers among those given. Adds a line of JSON for each to --out,
benchmarks/results/scale.jsonl.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.studies.runtimes.__main__ import texts_of
from toolkit.manifest import read_manifest
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError
from toolkit.utils.machine import describe_machine

WAY = Path(__file__).parent / "pipeline_way.py"
EVERY = 10**9
"""More rows than any file has."""


def main() -> None:
    """Run the study, print a table and append the figures to a file."""
    given = _arguments()
    texts = texts_of(given.file, EVERY)
    if not texts:
        raise InputError(f"{given.file}: no text")
    lines = []
    with tempfile.TemporaryDirectory(prefix="hbt-prediction-") as home:
        for line in (*_pipelines(given, texts, Path(home)), *_packages(given, texts, Path(home))):
            line |= {"rows_per_second": round(line["rows"] / line["seconds"], 1), "file": given.file.name}
            line |= {"load_1_min": round(os.getloadavg()[0], 1)}
            say(json.dumps(line))
            lines.append(line)
    machine = asdict(describe_machine())
    with given.out.open("a", encoding="utf-8") as out:
        out.writelines(json.dumps(line | {"machine": machine}, ensure_ascii=False) + "\n" for line in lines)
    print_table(_shown(lines), f"rows of {given.file.name}", left=("way", "model"))


def _packages(given: argparse.Namespace, texts: list[str], home: Path) -> Iterator[dict[str, Any]]:
    """Yield the figures of `hbt predict` with each package, engine and number of processes."""
    source = home / "in"
    source.mkdir()
    with (source / "texts.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text"])
        writer.writerows([texts[row % len(texts)]] for row in range(given.rows))
    for package in given.packages:
        for engine in given.engines:
            for processes in given.processes:
                output = home / f"out-{package.name}-{engine}-{processes}"
                command = [sys.executable, "-m", "hbt", "predict", str(package), "--input", str(source)]
                command += ["--output", str(output), "--processes", str(processes), "--json"]
                command += [] if engine == "local" else ["--engine", engine]
                before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise InputError(f"hbt predict --engine {engine}: {done.stderr[-1000:]}")
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                yield {
                    "way": "hbt predict" if engine == "local" else f"hbt predict --engine {engine}",
                    "engine": engine,
                    "model": f"{package.name} ({read_manifest(package)['target']})",
                    "processes": processes,
                    "rows": given.rows,
                    "seconds": round(time.monotonic() - started, 3),
                    # Java's workers of Spark and Ray's are no children of the command: theirs are not counted.
                    "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
                }


def _pipelines(given: argparse.Namespace, texts: list[str], home: Path) -> Iterator[dict[str, Any]]:
    """Yield the figures of the pipelines of transformers and optimum."""
    file = home / "sample.json"
    file.write_text(json.dumps(texts[: given.sample]), "utf-8")
    ways = []
    if given.pipeline:
        ways.append(("transformers", sys.executable, given.pipeline))
    if given.optimum_python:
        ways += [("optimum", given.optimum_python, str(p)) for p in given.packages if _known_to_optimum(p)]
    for kind, python, model in ways:
        for batch in (1, 32):
            for threads in given.processes:
                command = [python, str(WAY), kind, model, str(file), str(batch), str(threads)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise InputError(f"{kind}: {done.stderr[-1000:]}")
                found = json.loads(done.stdout.splitlines()[-1])
                yield {
                    "way": f"{kind} pipeline, batch {batch}",
                    "engine": kind,
                    "model": Path(model).name,
                    "processes": threads,
                    "rows": min(given.sample, len(texts)),
                    **found,
                }


def _known_to_optimum(package: Path) -> bool:
    config = json.loads((package / "config.json").read_text("utf-8"))
    known = config.get("model_type") not in ("ngram", "cascade")
    return known and str(read_manifest(package)["target"]).startswith("onnx")


def _shown(lines: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the lines of the table; ratios are to the fastest plain pipeline with as many threads."""
    plain: dict[int, float] = {}
    for line in lines:
        if line["engine"] == "transformers":
            plain[line["processes"]] = max(plain.get(line["processes"], 0.0), line["rows_per_second"])
    return [
        {
            "way": line["way"],
            "model": line["model"],
            "processes": str(line["processes"]),
            "rows": f"{line['rows']:,}",
            "seconds": f"{line['seconds']:.1f}",
            "rows/s": f"{line['rows_per_second']:,.0f}",
            "× pipeline": f"{line['rows_per_second'] / plain[line['processes']]:.1f}"
            if line["processes"] in plain
            else "",
        }
        for line in lines
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("packages", type=Path, nargs="+")
    parser.add_argument("--pipeline")
    parser.add_argument("--optimum-python")
    parser.add_argument("--engines", nargs="+", choices=("local", "spark", "ray"), default=["local"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--sample", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale.jsonl"))
    return parser.parse_args()


if __name__ == "__main__":
    main()

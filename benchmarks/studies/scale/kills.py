"""Kill `hbt predict` on each engine and `hbt serve` at random moments: files are whole or absent, a rerun is right.

    python -m benchmarks.studies.scale.kills PACKAGE [--jobs local spark ray serve] [--kills 12] [--rows 4000]

A job labels files of made-up texts, once without a kill, whose labels are the expected ones and whose seconds are the
span from which moments are drawn. Then, for each kill, it is started anew and it and all its processes get SIGKILL. Its
output must be absent or, file by file, complete. The same command must then end with the expected labels, label no file
again that was complete, and leave nothing else behind. `hbt serve` is killed while it answers, or while it starts, and
must answer the same on the same port when it is started again. Prints one line of JSON; the exit code is 1 after a
failure.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.studies.scale.large_corpus import sentences
from toolkit.utils.machine import describe_machine

FILES = 4
PATIENCE_S = 600


def main() -> None:
    """Run the study and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--jobs", nargs="+", default=["local", "spark", "ray", "serve"])
    parser.add_argument("--kills", type=int, default=12, help="of each job")
    parser.add_argument("--rows", type=int, default=4000, help="of all files together")
    parser.add_argument("--seed", type=int, default=14)
    given = parser.parse_args()
    found = {}
    for job in given.jobs:
        with tempfile.TemporaryDirectory(prefix="hbt-kills-") as home:
            kill = kill_serve if job == "serve" else kill_predict
            found[job] = kill(Path(home), given.package.resolve(), job, given.kills, given.rows, given.seed)
        print(f"{job}: {found[job]}", file=sys.stderr)
    shown = {"package": given.package.name, "jobs": found, "machine": asdict(describe_machine())}
    print(json.dumps(shown))
    sys.exit(any(figures["failures"] for figures in found.values()))


def kill_predict(home: Path, package: Path, engine: str, kills: int, rows: int, seed: int) -> dict[str, Any]:
    """Kill `hbt predict` on an engine; return the number of kills, of states that they left, and the failures."""
    (home / "in").mkdir()
    texts = [text for text, _ in sentences(rows, seed)]
    for number in range(FILES):
        own = texts[number * rows // FILES : (number + 1) * rows // FILES]
        (home / "in" / f"{number}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in own), "utf-8")
    command = [sys.executable, "-m", "hbt", "predict", str(package), "--input", "in", "--output", "out", "--json"]
    command += ["--processes", "2", *(["--engine", engine] if engine != "local" else [])]
    started = time.monotonic()
    whole = _finish(command, home)
    assert whole.returncode == 0, whole.stderr[-2000:]
    span = time.monotonic() - started
    expected = labels_in(home / "out")
    assert sum(expected.values()) == rows
    draw, left, failures = random.Random(seed), Counter[str](), []
    for number in range(kills):
        shutil.rmtree(home / "out", ignore_errors=True)
        moment = draw.uniform(0, span)
        _kill(_start(command, home), moment)
        complete = [path.name for path in labeled_files(home / "out")]
        if engine != "local":
            there = (home / "out").exists()
            left["complete" if there else "absent"] += 1
            if there and labels_in(home / "out") != expected:
                failures.append(f"kill {number} at {moment:.1f} s: half an output")
        else:
            left[f"{len(complete)} of {FILES} files"] += 1
            for name in complete:
                if len((home / "out" / name).read_text("utf-8").splitlines()) != rows // FILES:
                    failures.append(f"kill {number} at {moment:.1f} s: half of {name}")
        if engine != "local" and (home / "out").exists():
            continue  # a rerun would be refused: it is complete
        again = _finish(command, home)
        if again.returncode != 0:
            failures.append(f"kill {number} at {moment:.1f} s: the rerun ends with {again.stderr[-300:]}")
            continue
        if labels_in(home / "out") != expected:
            failures.append(f"kill {number} at {moment:.1f} s: other labels")
        if engine == "local" and json.loads(again.stdout)["skipped"] != len(complete):
            failures.append(f"kill {number} at {moment:.1f} s: work done twice")
        if sorted(path.name for path in home.iterdir()) != ["in", "out"]:
            failures.append(f"kill {number} at {moment:.1f} s: leaves {[path.name for path in home.iterdir()]}")
    return {"kills": kills, "seconds_without_kill": round(span, 1), "left": dict(left), "failures": failures}


def kill_serve(home: Path, package: Path, job: str, kills: int, rows: int, seed: int) -> dict[str, Any]:
    """Kill `hbt serve` with two workers while it starts or answers; return figures as `kill_predict`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hbt", "serve", str(package), "--port", str(port), "--workers", "2"]
    texts = [text for text, _ in sentences(64, seed)]
    started = time.monotonic()
    service = _start(command, home)
    expected = _answer(port, texts, service)
    span = time.monotonic() - started
    draw, left, failures = random.Random(seed), Counter[str](), []
    for number in range(kills):
        _kill(service, 0)
        moment = draw.uniform(0, 2 * span)
        service = _start(command, home)
        _kill(service, moment)
        left["starting" if moment < span else "answering"] += 1
        service = _start(command, home)
        try:
            if _answer(port, texts, service) != expected:
                failures.append(f"kill {number} at {moment:.1f} s: other answers")
        except (AssertionError, TimeoutError) as error:
            failures.append(f"kill {number} at {moment:.1f} s: {error}")
    service.terminate()
    code = service.wait(PATIENCE_S)
    if code != 0 or list(home.iterdir()):
        failures.append(f"the last one ended with {code} and left {[path.name for path in home.iterdir()]}")
    return {"kills": kills, "seconds_without_kill": round(span, 1), "left": dict(left), "failures": failures}


def labeled_files(folder: Path) -> list[Path]:
    """Return the labeled files of a folder, without those that are being written."""
    return sorted(file for file in folder.glob("*") if file.suffix in (".jsonl", ".parquet") and file.name[0] != ".")


def labels_in(folder: Path) -> Counter[tuple[str, str]]:
    """Return each text and its label in the labeled files of a folder, JSON Lines or Parquet."""
    from pyarrow import parquet

    rows: list[dict[str, Any]] = []
    for file in labeled_files(folder):
        if file.suffix == ".jsonl":
            rows += [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        else:
            rows += parquet.read_table(file).to_pylist()
    return Counter((row["text"], row["predicted_label"]) for row in rows)


def _start(command: list[str], home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


def _finish(command: list[str], home: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=PATIENCE_S)


def _kill(process: "subprocess.Popen[str]", after: float) -> None:
    """Kill a process and its descendants after some seconds, or do nothing if it has ended by then."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        seen = psutil.Process(process.pid)
        family = [seen, *seen.children(recursive=True)]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                os.kill(each.pid, signal.SIGKILL)
    process.wait()


def _answer(port: int, texts: list[str], service: "subprocess.Popen[str]") -> Any:
    """Return the predictions of the service, as soon as it answers."""
    body = json.dumps({"texts": texts}).encode()
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert service.poll() is None, f"it has ended with {service.returncode}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/predict", body, timeout=60) as answer:
                return json.load(answer)["predictions"]
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("it does not answer")


if __name__ == "__main__":
    main()

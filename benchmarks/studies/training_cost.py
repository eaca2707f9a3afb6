"""What does training cost? `python -m benchmarks.studies.training_cost --data FILE --model FOLDER --student layers:4`

Trains teacher, students and packages of one file with the commands that a user types, each in a process of its own, and
the teacher once more by the loop that tutorials show (one network, as many epochs). Prints and writes seconds, CPU
seconds and peak memory of each, beside those of the peers on the same rows, from the file that `python -m
benchmarks.peers` wrote. CPU seconds stand in for energy, which few machines tell. --out is a new folder, since the cost
of what is there already is not known.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.latency.limits import limit_memory
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError
from toolkit.utils.files import write_lines
from toolkit.utils.machine import describe_machine

PROJECT = Path(__file__).resolve().parents[2]
TEACHER = ("--pooling", "mean", "--folds", "3", "--epochs", "4", "--learning-rate", "2e-4")
STUDENT = ("--kd-epochs", "8", "--kd-learning-rate", "3e-4")


def main() -> None:
    given = _arguments()
    given.out.mkdir(parents=True)
    lines = []
    for name, command in commands(given).items():
        say(name)
        lines.append({"model": name} | cost_of(command, given.out))
        write_lines(lines, given.out / "training-cost.csv")
    lines += peers_in(given.peers) if given.peers else []
    write_lines(lines, given.out / "training-cost.csv")
    machine = describe_machine()
    title = f"{given.data.name}: {machine.cpu}, {machine.cores} CPUs, load average {machine.load_average}"
    print_table([{key: str(value) for key, value in line.items()} for line in lines], title, left=("model",))


def commands(given: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each model, in an order in which each finds what it needs."""
    data, model = str(given.data.resolve()), str(given.model.resolve())
    train = ["-m", "hbt", "train", "--data", data, "--model", model, *TEACHER]
    loop = ["-m", "benchmarks.studies.training_speed", "--data", data, "--model", model, "--loops", "C"]
    epochs = TEACHER[TEACHER.index("--epochs") + 1]
    found = {
        "teacher, 3 folds, and linear baseline": [*train, "--name", "teacher"],
        "Trainer of a tutorial, one network": [*loop, "--rounds", "1", "--epochs", epochs, "--rows", "1000000"],
        "ngram student": [*train, "--teacher", "runs/teacher", "--student", "ngram", "--name", "ngram"],
        f"student {given.student}": [
            *train, *STUDENT, "--teacher", "runs/teacher", "--student", given.student, "--name", "student"
        ],
        "package of the ngram student": ["-m", "hbt", "compress", "runs/ngram"],
        f"package of {given.student}: search of candidates": ["-m", "hbt", "compress", "runs/student"],
    }  # fmt: skip
    return {name: [sys.executable, *words] for name, words in found.items()}


def cost_of(command: Sequence[str], folder: Path, memory_mib: int | None = None) -> dict[str, Any]:
    """Run a command in `folder`; return its seconds, CPU seconds and peak MiB, with those of its own processes.

    memory_mib: limit of its private memory.
    Raises: InputError with the end of its output if it fails.
    """
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1"}
    log, started = folder / "log.txt", time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        limit = None if memory_mib is None else partial(limit_memory, memory_mib)
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, preexec_fn=limit
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise InputError(f"{' '.join(command)} failed:\n{log.read_text('utf-8')[-1000:]}")
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


def peers_in(file: Path) -> list[dict[str, Any]]:
    """Return the lines of the models in a file of `python -m benchmarks.peers`."""
    with file.open(newline="", encoding="utf-8") as stored:
        return [
            {key: line[key] for key in ("model", "seconds", "cpu_seconds", "peak_mib")}
            for line in csv.DictReader(stored)
        ]


def _arguments() -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.training_cost", description=summary)
    parser.add_argument("--data", type=Path, required=True, help="file with labeled texts")
    parser.add_argument("--model", type=Path, required=True, help="folder of the encoder")
    parser.add_argument("--student", default="layers:4", help="transformer student (default layers:4)")
    parser.add_argument("--peers", type=Path, help="peers-…-training.csv of the same file and machine")
    parser.add_argument("--out", type=Path, default=Path("training-cost"), help="a new folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Training on one and on several processes of torchrun, with the same number of threads in all.

    python -m benchmarks.studies.scale.training FILE [--processes 2] [--threads 2] [--train '--model shape:4x256 …']

Each way trains the same recipe in a folder of its own, from the same seed: one process with all threads, and
`--processes` with their share of them. Prints one line of JSON: seconds and macro-F1 of each stage, and the speed-up.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit.utils.machine import describe_machine

TRAIN = "--model shape:4x256 --student layers:2 --folds 2 --epochs 3 --kd-epochs 3 --learning-rate 5e-4"
STAGES = ("1-baseline", "2-distillation")


def main() -> None:
    """Run the study and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="in all")
    parser.add_argument("--train", default=TRAIN, help="options of hbt train")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        one = _train(Path(home) / "one", 1, given)
        several = _train(Path(home) / "several", given.processes, given)
    shown = {
        "file": given.file.name,
        "options": given.train,
        "threads": given.threads,
        "processes": given.processes,
        "one": one,
        "several": several,
        "speed_up": {stage: round(one[stage]["seconds"] / several[stage]["seconds"], 3) for stage in one},
        "macro_f1_points": {
            stage: round(100 * (several[stage]["macro_f1"] - one[stage]["macro_f1"]), 2) for stage in one
        },
        "load_1_5_15_min": [round(load, 1) for load in os.getloadavg()],
        "machine": asdict(describe_machine()),
    }
    print(json.dumps(shown))


def _train(home: Path, processes: int, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Train in the folder `home` and return seconds and macro-F1 on the test rows of each stage."""
    home.mkdir()
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] * (processes > 1)
    options = [*shlex.split(given.train), "--data", str(given.file.resolve()), "--name", "run"]
    settings = os.environ | {"OMP_NUM_THREADS": str(max(1, given.threads // processes))}
    subprocess.run([sys.executable, *start, "-m", "hbt", "train", *options], cwd=home, env=settings, check=True)
    results = {}
    for stage in STAGES:
        file = home / "runs" / "run" / stage / "result.json"
        if file.is_file():
            result = json.loads(file.read_text("utf-8"))
            results[stage] = {"seconds": round(result["seconds"], 1), "macro_f1": result["metrics"]["macro_f1"]}
    return results


if __name__ == "__main__":
    main()

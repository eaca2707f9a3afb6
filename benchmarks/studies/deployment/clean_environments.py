"""What a package needs on a fresh machine: size of its environment, cold start, memory.

    python -m benchmarks.studies.deployment.clean_environments PACKAGE [PACKAGE …] --out clean-environments.csv

Each package is copied into an empty folder, beside a virtual environment of its own with nothing but its
requirements.txt (and pip, which is not counted). A c package also runs as its compiled program, a js package in Node.
A cold start is the time from the start of a process to its first label, with files in the disk cache; the text is the
first golden text. Memory is the peak of that process at its first label. Without --python, Python is the one that runs
this.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.loaders.model_bin.library import compiler
from toolkit.manifest import read_manifest
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import InputError
from toolkit.utils.files import MB, folder_size, write_lines

STARTS = 20
_NODE = """
const { load } = await import(process.argv[1]);
const model = await load(process.argv[2]);
const lines = (await import("node:readline")).createInterface({ input: process.stdin });
for await (const line of lines) console.log(model.classify(line).label);
"""


@dataclass(frozen=True)
class Start:
    """One process, from its start to its first label."""

    ms: float
    peak_mib: float | None
    """None where Linux does not tell it."""


def main() -> None:
    given = _arguments()
    lines: list[dict[str, Any]] = []
    for package in given.packages:
        with tempfile.TemporaryDirectory(prefix="hbt-clean-") as scratch:
            lines += lines_of(package, Path(scratch), given.python)
        write_lines(lines, given.out)
    shown = [{key: str(value) for key, value in line.items()} for line in lines]
    print_table(shown, "clean environments", left=("package", "way"))


def lines_of(package: Path, scratch: Path, python: str) -> list[dict[str, Any]]:
    """Return one line for each way to run a package that needs nothing else."""
    say(f"{package}: installing its requirements")
    manifest = read_manifest(package)
    folder = Path(shutil.copytree(package, scratch / "package"))
    text = manifest["golden"][0]["text"]
    installed = environment(scratch / "environment", folder / "requirements.txt", python)
    loader = [str(scratch / "environment" / "bin" / "python"), str(folder / "how_to_load.py"), "--threads", "1", "-"]
    ways = {"how_to_load.py": (installed, loader)}
    if manifest["target"] == "c":
        ways["classify, compiled"] = (0, [classify(folder), str(folder / "model.bin")])
    if manifest["target"] == "js" and shutil.which("node"):
        places = [(folder / name).as_uri() for name in ("model.mjs", "model.bin")]
        ways["model.mjs, Node"] = (0, ["node", "--input-type=module", "-e", _NODE, *places])
    found = []
    for way, (size, command) in ways.items():
        start(command, text)  # the disk cache is warm, and what is compiled once is compiled
        starts = [start(command, text) for _ in range(STARTS)]
        peaks = [each.peak_mib for each in starts if each.peak_mib is not None]
        found.append(
            {
                "package": package.name,
                "way": way,
                "environment_mb": round(size / MB, 1),
                "package_mb": round(folder_size(package) / MB, 2),
                "cold_start_ms": round(statistics.median(each.ms for each in starts), 1),
                "peak_rss_mib": round(statistics.median(peaks), 1) if peaks else None,
            }
        )
    return found


def environment(folder: Path, requirements: Path, python: str) -> int:
    """Make a virtual environment with some requirements and return the bytes that they take. Raises: InputError."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    before = folder_size(folder)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(requirements)]
    done = subprocess.run([*command, "--disable-pip-version-check"], capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(f"{requirements}: pip cannot install it: {done.stderr[-500:]}")
    return folder_size(folder) - before


def classify(folder: Path) -> str:
    """Compile the command line of a c package and return its path."""
    made = folder.parent / "classify"
    sources = [str(folder / name) for name in ("model.c", "main.c")]
    subprocess.run([str(compiler()), "-std=c99", "-O2", "-o", str(made), *sources, "-lm"], check=True)
    return str(made)


def start(command: Sequence[str], text: str) -> Start:
    """Run a program that labels lines of its input until its first label. Raises: InputError if it gives none."""
    line = " ".join(text.split()).encode() + b"\n"
    before = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        answered = process.stdout.readline()
        ms = 1000 * (time.perf_counter() - before)
        peak = peak_mib(process.pid)
        process.stdin.close()
    if not answered:
        raise InputError(f"{command[0]} does not answer")
    return Start(ms, peak)


def peak_mib(process: int) -> float | None:
    """Return the peak resident memory of a process that waits; None where Linux does not tell it."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


def _arguments() -> argparse.Namespace:
    description = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.deployment.clean_environments", description=description
    )
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--python", default=sys.executable, help="makes the environments")
    parser.add_argument("--out", type=Path, default=Path("clean-environments.csv"))
    return parser.parse_args()


if __name__ == "__main__":
    main()

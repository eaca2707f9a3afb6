"""Which versions the requirements of a package resolve to: `python -m benchmarks.studies.wheels --out wheels.csv`.

For every target, Python and processor, pip resolves requirements.txt for that platform from wheels alone (a dry run:
only metadata are fetched). Fails if one of them has no solution. Versions of dependencies depend on the day.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from exporters.registry import exporter
from toolkit.package import requirements
from toolkit.utils.console import print_table
from toolkit.utils.errors import InputError
from toolkit.utils.files import write_lines

TARGETS = ("onnx-int8", "openvino-int8", "torch-int8")
"""The targets of the three runtimes."""
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
PROCESSORS = ("x86_64", "aarch64")
GLIBC = range(17, 36)
"""Minor versions of glibc 2 up to that of Debian 12, whose wheels are accepted."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.wheels", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--target", action="append", choices=TARGETS, help="all three, unless given")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="3.9 to 3.13, unless given")
    parser.add_argument("--out", default="wheels.csv", type=Path)
    given = parser.parse_args()
    lines = []
    for target in given.target or TARGETS:
        for python in given.python or PYTHONS:
            for processor in PROCESSORS:
                names = exporter(target).distributions
                found = resolved(requirements(names), python, processor)
                versions = " ".join(f"{name} {found[name]}" for name in names)
                lines.append({"target": target, "python": python, "processor": processor, "versions": versions})
                print(*lines[-1].values(), flush=True)
    write_lines(lines, given.out)
    print_table(lines, "resolved from wheels", left=("target", "versions"))


def resolved(text: str, python: str, processor: str) -> dict[str, str]:
    """Return the versions that pip selects for a requirements file on another Linux machine, by distribution.

    Raises: InputError if there is no solution.
    """
    platforms = [f"manylinux_2_{minor}_{processor}" for minor in GLIBC] + [f"manylinux2014_{processor}"]
    with tempfile.TemporaryDirectory(prefix="hbt-wheels-") as folder:
        file, report = Path(folder) / "requirements.txt", Path(folder) / "report.json"
        file.write_text(text, "utf-8")
        command = [
            sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps",
            "--target", folder, "--only-binary=:all:", "--implementation", "cp", "--python-version", python,
            *(word for platform in platforms for word in ("--platform", platform)),
            "--report", str(report), "-r", str(file),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"Python {python} on {processor}: {last}")
        installed = json.loads(report.read_text("utf-8"))["install"]
    return {each["metadata"]["name"].lower(): each["metadata"]["version"] for each in installed}


if __name__ == "__main__":
    main()

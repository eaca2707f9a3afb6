"""One hundred million comments a day on paper: machines, hours and cost by each engine, from measured figures.

    python -m benchmarks.studies.scale.simulation [--comments 100e6] [--cores 16] [--price 0.68] [--use 0.7]

Reads benchmarks/results/scale.jsonl (`benchmarks.studies.scale.prediction`) and benchmarks/results/serve.jsonl
(`benchmarks.studies.scale.serving`). Of each engine and model, the newest line with the most processes counts.

Assumed, not measured: that n cores label n times the rows of one (the measured rows per second, divided by the measured
processes, times the cores), that --use of a machine is used, and the price in dollars of an hour of a machine with
--cores cores: 0.68 is a round list price of 16 virtual cores of a cloud. A batch job is to be done within --hours; a
service is to stand a peak of --peak times the mean rate. Writes a table in Markdown to stdout.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks/results")
FILES = (RESULTS / "scale.jsonl", RESULTS / "serve.jsonl")
HEADINGS = (
    "engine",
    "model",
    "texts/s of a core",
    "core hours",
    "machines",
    "busy hours a day",
    "$ a day",
    "$ per million",
)


@dataclass(frozen=True)
class Assumptions:
    """What is not measured; see the top of this file."""

    comments: float
    cores: int
    price: float
    use: float
    hours: float
    peak: float


@dataclass(frozen=True)
class Rate:
    """What was measured of one engine with one model."""

    engine: str
    model: str
    per_core: float
    """Texts per second of one core."""
    serves: bool
    """Answers requests as they come, instead of labeling files."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    for name, value in (("comments", 100e6), ("price", 0.68), ("use", 0.7), ("hours", 6.0), ("peak", 3.0)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--files", type=Path, nargs="+", default=[file for file in FILES if file.is_file()])
    given = parser.parse_args()
    how = Assumptions(given.comments, given.cores, given.price, given.use, given.hours, given.peak)
    lines = [json.loads(line) for file in given.files for line in file.read_text("utf-8").splitlines()]
    print("\n".join(table(rates(lines), how)))


def rates(lines: Iterable[dict[str, Any]]) -> list[Rate]:
    """Return the rate of each engine and model: of the newest line with the most processes."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        key = line["way"], line["model"]
        if key not in best or line["processes"] >= best[key]["processes"]:
            best[key] = line
    return [
        Rate(way, model, line["rows_per_second"] / line["processes"], bool(line.get("serves")))
        for (way, model), line in best.items()
    ]


def needed(rate: Rate, how: Assumptions) -> tuple[float, int, float, float]:
    """Return core hours of work a day, machines, busy hours of each a day, and dollars a day.

    A batch job pays for the hours that it runs, a service for the whole day.
    """
    core_hours = how.comments / rate.per_core / 3600
    machine_hours = core_hours / how.cores / how.use
    if rate.serves:
        machines = math.ceil(how.peak * machine_hours / 24)
        return core_hours, machines, 24.0, 24 * machines * how.price
    machines = math.ceil(machine_hours / how.hours)
    return core_hours, machines, machine_hours / machines, machine_hours * how.price


def table(found: Iterable[Rate], how: Assumptions) -> Iterator[str]:
    """Yield the lines of a Markdown table, the cheapest first."""
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|---|---|" + "---:|" * (len(HEADINGS) - 2)
    for rate in sorted(found, key=lambda each: needed(each, how)[3]):
        core_hours, machines, hours, dollars = needed(rate, how)
        cells = [
            rate.engine,
            rate.model,
            f"{rate.per_core:,.0f}",
            f"{core_hours:,.1f}",
            f"{machines:,}",
            f"{hours:.1f}",
        ]
        cells += [f"{dollars:,.2f}", f"{dollars / how.comments * 1e6:.4f}"]
        yield "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()

"""Report measurements as a printed table, JSON and CSV."""

import csv
import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.intervals import paired_ratio, percentile_bound
from toolkit.latency.measure import Measurement
from toolkit.utils.errors import InputError
from toolkit.utils.files import whole_file, without_nan, write_text
from toolkit.utils.machine import Machine

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

MIB = 2**20
_ROUND = re.compile(r"\[\s+-?\d[^\[\]{}\"]*\]")
"""A list of numbers in indented JSON; it is written on one line."""


@dataclass(frozen=True)
class Row:
    """One model compared with the reference. None: not measured, or too few samples for a reliable figure."""

    name: str
    kind: str
    macro_f1: float | None
    macro_f1_difference_points: float | None
    """Difference from the reference in points: -1.0 is 0.01 lower."""
    accuracy: float | None
    p50_ms: float | None
    p90_ms: float | None
    p90_bound_ms: float | None
    """With 99 % confidence, the percentile is at most this."""
    p99_ms: float | None
    p99_bound_ms: float | None
    mean_ms: float | None
    max_ms: float | None
    samples: int
    threads: int
    speedup: float | None
    """Mean latency of the reference divided by that of the model: 2.0 is twice as fast. Medians in older files.

    A median would hide the texts that a cascade defers to its transformer. None on another machine than the reference.
    """
    speedup_low: float | None
    speedup_high: float | None
    """95 % interval of the speedup over the rounds."""
    throughput_b8_rows_s: float | None
    throughput_b32_rows_s: float | None
    cold_start_ms: float | None
    peak_rss_mib: float | None
    size_mib: float
    size_ratio: float | None
    """Size of the reference divided by that of the model: 4.0 is a quarter of the size."""
    machine: str | None
    """Another machine that the model was measured on, and the texts; its macro-F1 is that of the package here."""


def table(measurements: Sequence[Measurement], reference: str) -> list[Row]:
    """Return one row per measurement, in order, with ratios to the one named `reference`.

    Raises: InputError if there is none of that name.
    """
    base = next((m for m in measurements if m.name == reference), None)
    if base is None:
        names = ", ".join(m.name for m in measurements)
        raise InputError(f"--reference: {reference!r} was not measured; use one of {names}")
    return [_row(m, base) for m in measurements]


def render(rows: Sequence[Row], machine: Machine, reference: str) -> "Group":
    """Return three tables and notes for `rich.console.Console().print`, each at most 100 columns wide."""
    from rich.console import Group
    from rich.text import Text

    threads = ", ".join(sorted({str(row.threads) for row in rows}))
    load = "" if machine.load_average is None else f", load average {machine.load_average:g} before the measurement"
    notes = (
        f"{machine.cpu}, {machine.isa}, {machine.cores} CPUs, {machine.memory_gib:g} GiB{load}. "
        "–: not measured or too few samples. faster, from … to: 95 % interval over the rounds. at most: with 99 % "
        "confidence. "
        "Cold start: from process start to the first label. Memory: peak of the process."
    )
    for row in rows:
        if row.machine:
            notes += f"\n{row.name}: {row.machine}; macro-F1 is that of the same package here."
    title = f"Compared with {reference}: end-to-end latency (tokenization included); threads: {threads}"
    tables = [_shown(rows, columns, None) for columns in (_LATENCY_COLUMNS, _MORE_COLUMNS)]
    return Group(_shown(rows, _COLUMNS, title), *tables, Text(notes, style="dim"))


def _shown(rows: Sequence[Row], columns: dict[str, tuple[str, str]], title: str | None) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("model", *columns):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for row in rows:
        table.add_row(row.name, *(_text(getattr(row, name), template) for name, template in columns.values()))
    return table


def cells(rows: Sequence[Row]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the headings of all columns, and one line per row: `cells` (value, text), `front` (see `on_front`)."""
    columns = [*_COLUMNS.items(), *_LATENCY_COLUMNS.items(), *_MORE_COLUMNS.items()]
    seen: dict[str, tuple[str, str]] = {}
    for heading, (name, template) in columns:
        seen.setdefault(name, (heading.strip() if "at most" not in heading else _BOUNDS[name], template))
    lines = []
    for row in rows:
        values: list[tuple[Any, str]] = [(row.name, row.name)]
        for name, (_, template) in seen.items():
            value = getattr(row, name)
            values.append(("" if value is None else value, _text(value, template)))
        found = [{"value": value, "text": text} for value, text in values]
        lines.append({"cells": found, "front": on_front(row, rows)})
    return ["model", *(heading for heading, _ in seen.values())], lines


def on_front(row: Row, rows: Sequence[Row]) -> bool:
    """Return whether no other row is at least as fast and as accurate, and better in one of both."""
    own = (row.mean_ms, row.macro_f1)
    if row.machine or None in own:
        return False
    others = [(each.mean_ms, each.macro_f1) for each in rows if not each.machine]
    return not any(
        other != own and other[0] <= own[0] and other[1] >= own[1]  # type: ignore[operator]
        for other in others
        if None not in other
    )


def write_json(
    measurements: Sequence[Measurement],
    machine: Machine,
    reference: str,
    file: Path,
    busy_share: float | None = None,
    changes: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write measurements, machine and ratios as JSON; NaN becomes null.

    busy_share: share of the CPUs that other processes used. changes: since an earlier measurement. notes: what a reader
    must know, such as models that could not be measured.
    """
    record = {
        "machine": dataclasses.asdict(machine),
        "busy_share": busy_share,
        "reference": reference,
        "measurements": [dataclasses.asdict(m) for m in measurements],
        "rows": [dataclasses.asdict(row) for row in table(measurements, reference)],
        "changes": list(changes),
        "notes": list(notes),
    }
    text = json.dumps(without_nan(record), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(file, _ROUND.sub(lambda found: " ".join(found[0].split()), text) + "\n")


def read_json(file: Path) -> tuple[list[Measurement], Machine, str]:
    """Return measurements, machine and reference from a file of `write_json`; a NaN is read as None."""
    record = json.loads(file.read_text("utf-8"))
    measurements = []
    for m in record["measurements"]:
        rounds = tuple(tuple(each) for each in m.get("rounds_ms", ()))
        measurements.append(Measurement(**m | {"imported": tuple(m["imported"]), "rounds_ms": rounds}))
    machine = record["machine"]
    return measurements, Machine(**machine | {"flags": tuple(machine["flags"])}), record["reference"]


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Write one line per model; missing figures are empty cells."""
    with whole_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, [f.name for f in dataclasses.fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(without_nan(dataclasses.asdict(row)) for row in rows)


_COLUMNS = {
    "macro-F1": ("macro_f1", "{:.4f}"),
    "Δ points": ("macro_f1_difference_points", "{:+.2f}"),
    "mean ms": ("mean_ms", "{:.3g}"),
    "p50 ms": ("p50_ms", "{:.3g}"),
    "p99 ms": ("p99_ms", "{:.3g}"),
    "faster": ("speedup", "{:.1f} ×"),
    "size MiB": ("size_mib", "{:,.1f}"),
    "smaller": ("size_ratio", "{:.1f} ×"),
}
_LATENCY_COLUMNS = {
    "faster, from": ("speedup_low", "{:.1f} ×"),
    "to": ("speedup_high", "{:.1f} ×"),
    "p90 ms": ("p90_ms", "{:.3g}"),
    "at most": ("p90_bound_ms", "{:.3g}"),
    "p99 ms": ("p99_ms", "{:.3g}"),
    "at most ": ("p99_bound_ms", "{:.3g}"),
    "max ms": ("max_ms", "{:.3g}"),
}
_BOUNDS = {"p90_bound_ms": "p90 at most", "p99_bound_ms": "p99 at most"}
_MORE_COLUMNS = {
    "rows/s b8": ("throughput_b8_rows_s", "{:,.0f}"),
    "rows/s b32": ("throughput_b32_rows_s", "{:,.0f}"),
    "cold start ms": ("cold_start_ms", "{:,.0f}"),
    "memory MiB": ("peak_rss_mib", "{:,.0f}"),
}
"""Heading to field and format of the printed tables."""


def _row(m: Measurement, base: Measurement) -> Row:
    paired = None if m.machine or m is base else paired_ratio(base.rounds_ms, m.rounds_ms)
    samples = [sample for each in m.rounds_ms for sample in each]
    macro_f1, base_f1 = m.metrics.get("macro_f1"), base.metrics.get("macro_f1")
    return Row(
        name=m.name,
        kind=m.kind,
        macro_f1=macro_f1,
        macro_f1_difference_points=None if macro_f1 is None or base_f1 is None else 100 * (macro_f1 - base_f1),
        accuracy=m.metrics.get("accuracy"),
        p50_ms=m.p50_ms,
        p90_ms=m.p90_ms,
        p90_bound_ms=percentile_bound(samples, 90),
        p99_ms=m.p99_ms,
        p99_bound_ms=percentile_bound(samples, 99),
        mean_ms=m.mean_ms,
        max_ms=m.max_ms,
        samples=m.samples,
        threads=m.threads,
        speedup=None if m.machine else _ratio(base.mean_ms, m.mean_ms) or _ratio(base.p50_ms, m.p50_ms),
        speedup_low=None if paired is None else paired.low,
        speedup_high=None if paired is None else paired.high,
        throughput_b8_rows_s=m.throughput_b8_rows_s,
        throughput_b32_rows_s=m.throughput_b32_rows_s,
        cold_start_ms=m.cold_start_ms,
        peak_rss_mib=m.peak_rss_mib,
        size_mib=m.size_bytes / MIB,
        size_ratio=_ratio(base.size_bytes, m.size_bytes),
        machine=m.machine,
    )


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def _text(value: float | None, template: str) -> str:
    return "–" if value is None or math.isnan(value) else template.format(value)

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

from benchmarks.columns import FULL_HEADINGS, NOTES, TITLES, tables_of
from benchmarks.intervals import paired_ratio, percentile_bound
from benchmarks.limit.parts import PARTS
from toolkit.latency.limits import CpuTarget
from toolkit.latency.measure import Measurement
from toolkit.latency.scenarios import SINGLE_STREAM
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
    scenario: str
    ms_per_text: float | None
    """What models are compared by: mean latency, or the inverse of the rate of the scenarios offline and server."""
    rate_texts_s: float | None
    """Offline: with all texts at once. Server: the highest rate that holds p99_limit_ms."""
    batch: int | None
    p99_limit_ms: float | None
    encode_ms: float | None
    start_ms: float | None
    import_ms: float | None
    load_ms: float | None
    first_label_ms: float | None
    """Parts of the cold start."""
    rss_over_python_mib: float | None
    peak_over_python_mib: float | None
    """Resident memory after the first label, and its peak, beyond that of a Python that does nothing."""
    energy_mj: float | None
    embedding_mib: float | None
    encoder_mib: float | None
    tokenizer_mib: float | None
    runtime_mib: float | None
    """Sizes by part: see `benchmarks.limit.parts`."""
    fits: bool
    """Whether it stayed within the memory of the CPU target."""
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


def render(rows: Sequence[Row], machine: Machine, reference: str, target: str | None = None) -> "Group":
    """Return tables and notes for `rich.console.Console().print`, each at most 100 columns wide.

    target: the machine that was imitated, in words.
    """
    from rich.console import Group
    from rich.text import Text

    threads = ", ".join(sorted({str(row.threads) for row in rows}))
    load = "" if machine.load_average is None else f", load average {machine.load_average:g} before the measurement"
    scenario = next((row.scenario for row in rows if not row.machine), SINGLE_STREAM)
    notes = (
        f"{machine.cpu}, {machine.isa}, {machine.cores} CPUs, {machine.memory_gib:g} GiB{load}. "
        "–: not measured or too few samples. faster, from … to: 95 % interval over the rounds. at most: with 99 % "
        f"confidence. {NOTES[scenario]}"
    )
    if target is not None:
        notes += f"\nImitated: {target}. Clock rate, caches and memory bandwidth are those of this machine."
    for row in rows:
        if row.machine:
            notes += f"\n{row.name}: {row.machine}; macro-F1 is that of the same package here."
        if not row.fits:
            notes += f"\n{row.name}: needs more memory than the target has."
    title = f"Compared with {reference}: {TITLES[scenario]}; threads: {threads}"
    first, *others = tables_of(scenario)
    tables = [_shown(rows, columns, None) for columns in others if _has_any(rows, columns)]
    return Group(_shown(rows, first, title), *tables, Text(notes, style="dim"))


def _has_any(rows: Sequence[Row], columns: dict[str, tuple[str, str]]) -> bool:
    """Return whether a table would have a figure."""
    return any(getattr(row, name) is not None for row in rows for name, _ in columns.values())


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
    scenario = next((row.scenario for row in rows if not row.machine), SINGLE_STREAM)
    columns = [item for table in tables_of(scenario) if _has_any(rows, table) for item in table.items()]
    seen: dict[str, tuple[str, str]] = {}
    for heading, (name, template) in columns:
        seen.setdefault(name, (FULL_HEADINGS.get(name, heading.strip()), template))
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
    own = (row.ms_per_text, row.macro_f1)
    if row.machine or None in own:
        return False
    others = [(each.ms_per_text, each.macro_f1) for each in rows if not each.machine]
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
    target: CpuTarget | None = None,
) -> None:
    """Write measurements, machine and ratios as JSON; NaN becomes null.

    busy_share: share of the CPUs that other processes used. changes: since an earlier measurement. notes: what a reader
    must know, such as models that could not be measured. target: the machine that was imitated.
    """
    record = {
        "machine": dataclasses.asdict(machine),
        "busy_share": busy_share,
        "cpu_target": None if target is None else dataclasses.asdict(target),
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
        lists = {"imported": tuple(m["imported"]), "rates_texts_s": tuple(m.get("rates_texts_s", ()))}
        measurements.append(Measurement(**m | lists | {"rounds_ms": rounds}))
    machine = record["machine"]
    return measurements, Machine(**machine | {"flags": tuple(machine["flags"])}), record["reference"]


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Write one line per model; missing figures are empty cells."""
    with whole_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, [f.name for f in dataclasses.fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(without_nan(dataclasses.asdict(row)) for row in rows)


def _row(m: Measurement, base: Measurement) -> Row:
    comparable = not m.machine and base.rounds_ms_per_text and m.rounds_ms_per_text
    paired = paired_ratio(base.rounds_ms_per_text, m.rounds_ms_per_text) if comparable and m is not base else None
    samples = [sample for each in m.rounds_ms for sample in each]
    parts: dict[str, Any] = {f"{part}_mib": _mib(m.parts_bytes.get(part)) for part in PARTS}
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
        speedup=None if m.machine else _speedup(base, m),
        speedup_low=None if paired is None else paired.low,
        speedup_high=None if paired is None else paired.high,
        throughput_b8_rows_s=m.throughput_b8_rows_s,
        throughput_b32_rows_s=m.throughput_b32_rows_s,
        cold_start_ms=m.cold_start_ms,
        peak_rss_mib=m.peak_rss_mib,
        size_mib=m.size_bytes / MIB,
        size_ratio=_ratio(base.size_bytes, m.size_bytes),
        scenario=m.scenario,
        ms_per_text=None if m.machine else m.ms_per_text,
        rate_texts_s=None if m.scenario == SINGLE_STREAM or not m.ms_per_text else 1000 / m.ms_per_text,
        batch=m.batch,
        p99_limit_ms=m.p99_limit_ms,
        encode_ms=m.encode_ms,
        start_ms=m.start_ms,
        import_ms=m.import_ms,
        load_ms=m.load_ms,
        first_label_ms=m.first_label_ms,
        rss_over_python_mib=_beyond(m.rss_mib, m.python_mib),
        peak_over_python_mib=_beyond(m.peak_rss_mib, m.python_mib),
        energy_mj=m.energy_mj,
        **parts,
        fits=m.fits,
        machine=m.machine,
    )


def _speedup(base: Measurement, m: Measurement) -> float | None:
    """Return how many times faster a model is; of medians, if one of both is from a file without means."""
    if m.scenario == SINGLE_STREAM and None in (base.mean_ms, m.mean_ms):
        return _ratio(base.p50_ms, m.p50_ms)
    return _ratio(base.ms_per_text, m.ms_per_text)


def _mib(size: int | None) -> float | None:
    return None if size is None else size / MIB


def _beyond(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def _text(value: float | None, template: str) -> str:
    return "–" if value is None or math.isnan(value) else template.format(value)

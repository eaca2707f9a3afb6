"""Ratios against hand-computed values, and round trips through files."""

import csv
import dataclasses
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from benchmarks.page import write_page
from benchmarks.report import Row, on_front, read_json, render, table, write_csv, write_json
from toolkit.latency.measure import Measurement
from toolkit.utils.errors import InputError
from toolkit.utils.machine import Machine

MIB = 2**20
MACHINE = Machine("CPU X", "x86-64 AVX2", ("avx2",), 4, 7.6, "Linux", "3.11.9", {"numpy": "2.4.6"}, 0.25)


def measured(
    name: str, p50_ms: float | None, macro_f1: float | None, mib: float = 1.0, kind: str = "package"
) -> Measurement:
    return Measurement(
        name=name,
        kind=kind,
        size_bytes=int(mib * MIB),
        threads=1,
        samples=500,
        p50_ms=p50_ms,
        p90_ms=None if p50_ms is None else 2 * p50_ms,
        p99_ms=None,
        throughput_b8_rows_s=100.0,
        throughput_b32_rows_s=None,
        cold_start_ms=250.0,
        peak_rss_mib=80.0,
        imported=("onnxruntime",),
        metrics={} if macro_f1 is None else {"macro_f1": macro_f1, "accuracy": 0.9, "roc_auc": math.nan},
    )


TEACHER = measured("teacher", 10.0, 0.85, mib=100, kind="checkpoint")
STUDENT = measured("student & <int8>", 0.5, 0.84, mib=5)
FLOOR = measured("floor", 0.4, 0.83, mib=1.5, kind="floor")
ALL = [TEACHER, STUDENT, FLOOR]


def test_ratios_are_against_the_reference() -> None:
    teacher, student, _ = table(ALL, "teacher")
    assert (teacher.speedup, teacher.size_ratio, teacher.macro_f1_difference_points) == (1.0, 1.0, 0.0)
    assert (student.speedup, student.size_ratio, student.size_mib) == (20.0, 20.0, 5.0)
    assert student.macro_f1_difference_points == pytest.approx(-1.0)


def test_missing_measurements_have_no_ratio() -> None:
    _, other = table([TEACHER, measured("other", None, None)], "teacher")
    assert (other.speedup, other.macro_f1, other.macro_f1_difference_points) == (None, None, None)


def test_unknown_reference_is_reported_with_the_measured_names() -> None:
    with pytest.raises(InputError, match=r"'nobody' was not measured; use one of teacher, student & <int8>, floor"):
        table(ALL, "nobody")


def test_json_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    write_json([STUDENT], MACHINE, STUDENT.name, file)
    (found,), machine, reference = read_json(file)
    assert found.metrics == {"macro_f1": 0.84, "accuracy": 0.9, "roc_auc": None}
    assert (machine, reference) == (MACHINE, STUDENT.name)
    write_json([found], machine, reference, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()


def test_json_is_strict_and_has_units_in_its_keys(tmp_path: Path) -> None:
    write_json(ALL, MACHINE, "teacher", tmp_path / "bench.json")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads((tmp_path / "bench.json").read_text("utf-8"), parse_constant=refuse)
    assert record["rows"][1]["speedup"] == 20.0
    assert {"p50_ms", "size_bytes", "peak_rss_mib", "cold_start_ms"} <= record["measurements"][0].keys()


def test_csv_has_one_line_per_model_and_empty_cells_for_missing_figures(tmp_path: Path) -> None:
    write_csv(table(ALL, "teacher"), tmp_path / "bench.csv")
    with (tmp_path / "bench.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["name"] for row in rows] == [m.name for m in ALL]
    assert (float(rows[1]["speedup"]), rows[1]["p99_ms"], float(rows[2]["p50_ms"])) == (20.0, "", 0.4)


def test_printed_table_shows_figures_machine_and_missing_values() -> None:
    out = io.StringIO()
    Console(file=out, width=240).print(render(table(ALL, "teacher"), MACHINE, "teacher"))
    line = next(line for line in out.getvalue().splitlines() if "student" in line)
    assert all(text in line for text in ("0.8400", "-1.00", " 0.5 ", "20.0 ×", "–"))
    assert "x86-64 AVX2" in out.getvalue()


def test_the_speedup_has_an_interval_over_the_rounds() -> None:
    rounds = [[10.0, 12.0], [20.0, 22.0], [10.0, 10.0]]
    faster = [[1.0, 1.2], [2.0, 2.2], [1.1, 1.1]]
    teacher = dataclasses.replace(TEACHER, rounds_ms=tuple(map(tuple, rounds)))
    student = dataclasses.replace(STUDENT, rounds_ms=tuple(map(tuple, faster)))
    base, row = table([teacher, student], "teacher")
    logs = np.log([10.0, 10.0, 10 / 1.1])
    low, high = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    assert (row.speedup_low, row.speedup_high) == pytest.approx((math.exp(low), math.exp(high)))
    assert (base.speedup_low, base.speedup_high) == (None, None)


def test_the_front_has_the_models_that_no_other_one_beats_in_both() -> None:
    def row(name: str, mean_ms: float | None, macro_f1: float | None, machine: str | None = None) -> Row:
        (found,) = table([dataclasses.replace(measured(name, 1.0, macro_f1), mean_ms=mean_ms, machine=machine)], name)
        return found

    rows = [row("slow", 9.0, 0.9), row("fast", 1.0, 0.8), row("worse", 2.0, 0.8), row("as fast", 1.0, 0.7)]
    rows += [row("unknown", None, 0.99), row("elsewhere", 0.1, 0.99, "a phone"), row("twin", 9.0, 0.9)]
    assert [each.name for each in rows if on_front(each, rows)] == ["slow", "fast", "twin"]


def test_rounds_survive_the_file_and_take_one_line_each(tmp_path: Path) -> None:
    model = dataclasses.replace(STUDENT, rounds_ms=((0.5, 0.25), (1e-05, 3.0)))
    write_json([model], MACHINE, STUDENT.name, tmp_path / "bench.json", busy_share=0.5)
    assert read_json(tmp_path / "bench.json")[0][0].rounds_ms == model.rounds_ms
    assert "[ 0.5, 0.25 ]" in (tmp_path / "bench.json").read_text("utf-8")


def test_the_page_needs_no_network_and_shows_every_model(tmp_path: Path) -> None:
    student = dataclasses.replace(STUDENT, mean_ms=0.55, rounds_ms=((0.5, 0.6), (0.7, 0.4)))
    models = [dataclasses.replace(TEACHER, mean_ms=10.0), student]
    write_page(table(models, "teacher"), models, MACHINE, "teacher", "<?xml?><svg>figure</svg>", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "student &amp; &lt;int8&gt;" in page  # names are text
    assert "<svg>figure</svg>" in page
    assert page.count("<svg") == 2  # the other one is the distribution
    assert not re.findall(r"(?:src|href)=.?https?://", page)
    assert page.count('class="front"') == 2

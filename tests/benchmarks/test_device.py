"""Figures that how_to_load.py --bench printed on another machine, in the table and figure of hbt bench."""

import copy
import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.device import MAX_BYTES, SCHEMA, read_device, with_metrics
from benchmarks.plot import plot
from benchmarks.report import table, write_csv
from tests.benchmarks.test_report import measured
from toolkit.manifest import sha256_of
from toolkit.utils.errors import InputError

DEMO = Path(__file__).parents[2] / "models" / "demo-onnx-int8"
RECORD: dict[str, Any] = {
    "schema": SCHEMA,
    "package": {"name": "demo", "target": "onnx-int8", "manifest_sha256": "", "size_bytes": 1000},
    "machine": {
        "cpu": "Cortex-A76", "architecture": "aarch64", "flags": ["asimd", "asimddp"], "cores": 4, "memory_gib": 8.0,
        "os": "Linux", "python": "3.9.2", "load_average": 0.1,
    },
    "versions": {"onnxruntime": "1.19.2"},
    "texts": {"source": "in.csv", "distinct": 300, "mean_characters": 80.0},
    "self_test": {"passed": True, "other_ids": 0, "other_labels": 0, "largest_score_difference": 1e-7},
    "measurement": {
        "threads": 1, "samples": 300, "p50_ms": 4.0, "p90_ms": 6, "p99_ms": None, "mean_ms": 4.5, "max_ms": 9.0,
        "throughput_b8_rows_s": 200.0, "throughput_b32_rows_s": 200.0, "cold_start_ms": 900.0, "peak_rss_mib": None,
    },
}  # fmt: skip


def written(file: Path, change: Callable[[dict[str, Any]], Any] = lambda record: None) -> Path:
    record = copy.deepcopy(RECORD)
    record["package"]["manifest_sha256"] = sha256_of(DEMO / "manifest.json")
    change(record)
    file.write_text(json.dumps(record), "utf-8")
    return file


def test_a_device_is_a_row_of_its_own_without_a_speedup(tmp_path: Path) -> None:
    device = read_device(written(tmp_path / "device.json"), [DEMO])
    here = [measured("baseline", 8.0, 0.7), measured(DEMO.name, 1.0, 0.8)]
    rows = table([*here, with_metrics(device, here)], "baseline")
    assert rows[2].name == f"{DEMO.name}, Cortex-A76"
    assert (rows[2].p50_ms, rows[2].speedup, rows[2].macro_f1, rows[1].speedup) == (4.0, None, 0.8, 8.0)
    assert "arm64 DOTPROD, 4 CPUs, Python 3.9.2; on in.csv (300 texts)" in str(rows[2].machine)
    write_csv(rows, tmp_path / "bench.csv")
    with (tmp_path / "bench.csv").open(encoding="utf-8", newline="") as lines:
        assert [row["machine"] != "" for row in csv.DictReader(lines)] == [False, False, True]
    plot([*here, with_metrics(device, here)], tmp_path / "bench.svg")
    assert "Cortex-A76" in (tmp_path / "bench.svg").read_text("utf-8")


def test_a_device_with_other_answers_has_no_macro_f1(tmp_path: Path) -> None:
    device = read_device(written(tmp_path / "d.json", lambda record: record["self_test"].update(passed=False)), [DEMO])
    assert with_metrics(device, [measured(DEMO.name, 1.0, 0.8)]).metrics == {}


def test_a_changed_package_is_another_package(tmp_path: Path) -> None:
    folder = shutil.copytree(DEMO, tmp_path / "package")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps(manifest | {"checked_on": "x"}), "utf-8")
    with pytest.raises(InputError, match="measured 'demo', which is none of these packages"):
        read_device(written(tmp_path / "d.json"), [folder])


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(schema="other"),
        lambda record: record.pop("schema"),
        lambda record: record.pop("machine"),
        lambda record: record["measurement"].update(p50_ms="fast"),
        lambda record: record["measurement"].update(p50_ms=-1),
        lambda record: record["measurement"].update(p50_ms=float("nan")),
        lambda record: record["measurement"].update(samples=1.5),
        lambda record: record["measurement"].update(samples=True),
        lambda record: record["measurement"].pop("mean_ms"),
        lambda record: record["machine"].update(flags=3),
        lambda record: record.update(package=[]),
        lambda record: record.update(self_test=None),
    ],
)
def test_a_malformed_record_is_one_line(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(InputError, match=r"not what how_to_load.py --bench prints") as caught:
        read_device(written(tmp_path / "d.json", change), [DEMO])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"1", b"\xff", b"[" * 100_000, b"x" * (MAX_BYTES + 1)])
def test_a_file_of_something_else_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.json").write_bytes(content)
    with pytest.raises(InputError, match=r"what how_to_load.py --bench prints"):
        read_device(tmp_path / "d.json", [DEMO])
    with pytest.raises(InputError, match="cannot be read"):
        read_device(tmp_path / "missing.json", [DEMO])
    with pytest.raises(InputError, match="cannot be read"):
        read_device(tmp_path, [DEMO])


def test_names_from_a_device_run_nothing_in_a_terminal_or_spreadsheet(tmp_path: Path) -> None:
    def hostile(record: dict[str, Any]) -> None:
        record["machine"]["cpu"] = "=cmd()\x1b[31m\n" * 50

    found = read_device(written(tmp_path / "d.json", hostile), [DEMO]).measurement
    assert "\x1b" not in f"{found.name}{found.machine}"
    assert "\n" not in f"{found.name}{found.machine}"
    assert str(found.machine).startswith("'=")

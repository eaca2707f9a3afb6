"""Tables, figure and comparison of the scenarios offline and server."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.against import changes
from benchmarks.bench import Conditions, _stem
from benchmarks.columns import tables_of
from benchmarks.page import write_page
from benchmarks.plot import figure
from benchmarks.report import on_front, read_json, render, table, write_json
from tests.benchmarks.test_report import MACHINE, measured
from toolkit.latency.limits import CpuTarget
from toolkit.latency.measure import Measurement
from toolkit.latency.scenarios import Scenario


def rated(name: str, scenario: str, rates: tuple[float, ...], macro_f1: float = 0.8) -> Measurement:
    return dataclasses.replace(
        measured(name, None, macro_f1),
        scenario=scenario,
        rates_texts_s=rates,
        batch=16 if scenario == "offline" else None,
        p99_limit_ms=20.0 if scenario == "server" else None,
    )


def printed(models: list[Measurement], target: str | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=110).print(render(table(models, models[0].name), MACHINE, models[0].name, target))
    return out.getvalue()


def test_models_are_compared_by_their_rates() -> None:
    base, fast = rated("base", "offline", (100.0, 50.0)), rated("fast", "offline", (1000.0, 500.0))
    _, row = table([base, fast], "base")
    assert row.rate_texts_s == pytest.approx(2 / (1 / 1000 + 1 / 500))  # texts divided by time
    assert row.speedup == pytest.approx(10)
    assert (row.speedup_low, row.speedup_high) == pytest.approx((10, 10))
    text = printed([base, fast])
    assert all(part in text for part in ("all texts at once", "texts/s", "667", "16", "10.0 ×"))
    assert "p50" not in text


def test_a_server_table_states_its_bound_and_a_model_that_never_holds_it() -> None:
    fast, none = rated("fast", "server", (500.0, 500.0, 500.0)), rated("none", "server", ())
    fast = dataclasses.replace(fast, p50_ms=3.0)
    text = printed([fast, none], "tiny, a tiny machine")
    line = next(line for line in text.splitlines() if "none" in line)
    assert "20 ms" in text
    assert "500" in text
    assert line.count("–") >= 3
    assert "Imitated: tiny, a tiny machine." in " ".join(text.split())
    rows = table([fast, none], "fast")
    assert [on_front(row, rows) for row in rows] == [True, False]


def test_a_model_that_does_not_fit_is_named() -> None:
    base = rated("base", "offline", (100.0,))
    large = dataclasses.replace(rated("large", "offline", ()), fits=False)
    assert "large: needs more memory than the target has." in printed([base, large])


def test_memory_and_parts_of_the_cold_start_are_in_the_table() -> None:
    model = dataclasses.replace(
        measured("model", 1.0, 0.8), python_mib=10.0, rss_mib=50.0, start_ms=100.0, import_ms=90.0, load_ms=40.0,
        first_label_ms=20.0, parts_bytes={"embedding": 2**20, "encoder": 3 * 2**20}, energy_mj=0.25,
    )  # fmt: skip
    (row,) = table([model], "model")
    assert (row.peak_over_python_mib, row.rss_over_python_mib) == (70.0, 40.0)
    assert (row.embedding_mib, row.encoder_mib, row.runtime_mib) == (1.0, 3.0, None)
    text = printed([model])
    assert all(part in text for part in ("beyond Python", "first label", "embedding MiB", "0.25"))
    assert "embedding" not in printed([measured("model", 1.0, 0.8)])  # a table without a figure is left out
    assert max(map(len, printed([model]).splitlines())) <= 110


@pytest.mark.parametrize("scenario", ["single-stream", "offline", "server"])
def test_the_tables_fit_on_a_terminal_of_100_columns(scenario: str) -> None:
    name = "layers-3-onnx-int8"
    for columns in tables_of(scenario):
        assert len(name) + sum(max(len(heading), 6) + 3 for heading in columns) <= 100


def test_rates_survive_the_file(tmp_path: Path) -> None:
    model = rated("model", "server", (100.0, 90.0))
    target = CpuTarget("tiny", "a tiny machine")
    write_json([model], MACHINE, "model", tmp_path / "bench.json", target=target)
    (found,), _, _ = read_json(tmp_path / "bench.json")
    assert found.rates_texts_s == (100.0, 90.0)
    assert found.ms_per_text == model.ms_per_text
    assert '"name": "tiny"' in (tmp_path / "bench.json").read_text("utf-8")


def test_only_the_same_scenario_and_bound_are_compared_over_time() -> None:
    before = [rated("model", "server", (100.0, 101.0, 99.0))]
    slower = rated("model", "server", (50.0, 51.0, 49.0))
    (found,) = changes(before, [slower])
    assert (found.verdict, found.ratio) == ("slower", pytest.approx(2, rel=0.01))
    assert changes(before, [dataclasses.replace(slower, p99_limit_ms=5.0)]) == []
    assert changes(before, [rated("model", "offline", (50.0, 51.0))]) == []


def test_figure_and_page_show_rates(tmp_path: Path) -> None:
    models = [rated("base", "server", (100.0, 90.0)), rated("fast", "server", (1000.0, 900.0), 0.9)]
    assert "highest rate" in figure(models).axes[0].get_xlabel()
    write_page(table(models, "base"), models, MACHINE, "base", "<svg></svg>", tmp_path / "page.html", "tiny")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "Highest rate of random arrivals" in page
    assert "Imitated: tiny" in page
    assert page.count('class="front"') == 1


def test_files_of_other_conditions_have_names_of_their_own() -> None:
    assert _stem("demo", 1, Conditions()) == "demo-1-thread"
    conditions = Conditions(Scenario("server"), CpuTarget("small-vm", "small"))
    assert _stem("demo", 2, conditions) == "demo-2-threads-server-small-vm"

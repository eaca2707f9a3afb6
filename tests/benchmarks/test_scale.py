"""The studies of docs/scale.md: what is computed from measured figures, and the corpus that is made for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.scale import simulation
from benchmarks.studies.scale.large_corpus import write_corpus
from benchmarks.studies.scale.simulation import Assumptions, Rate, needed, rates
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import describe_split, load_corpus
from toolkit.training.linear_fit import fit_linear

HOW = Assumptions(comments=3_600_000, cores=4, price=0.5, use=0.5, hours=2, peak=3)


def test_a_batch_job_pays_for_its_hours() -> None:
    """3.6 million texts at 100 a second are 10 core hours: 5 hours of a machine of 4 cores, half used: 3 in 2 hours."""
    core_hours, machines, hours, dollars = needed(Rate("a", "b", 100.0, serves=False), HOW)
    assert (core_hours, machines) == (10, 3)
    assert hours == pytest.approx(5 / 3)
    assert dollars == pytest.approx(2.5)


def test_a_service_pays_for_the_day_and_stands_its_peak() -> None:
    """Three times the mean rate: 15 of 24 hours, so one machine all day."""
    assert needed(Rate("a", "b", 100.0, serves=True), HOW) == (10, 1, 24, 12)
    assert needed(Rate("a", "b", 50.0, serves=True), HOW)[1] == 2


def test_the_newest_line_with_the_most_processes_counts() -> None:
    def line(processes: int, rate: float, **more: Any) -> dict[str, Any]:
        return {"way": "hbt predict", "model": "m", "processes": processes, "rows_per_second": rate} | more

    found = rates([line(1, 10.0), line(2, 30.0), line(1, 12.0), line(2, 18.0), line(1, 5.0, way="hbt serve")])
    assert [(rate.engine, rate.per_core) for rate in found] == [("hbt predict", 9.0), ("hbt serve", 5.0)]


def test_the_table_has_a_line_for_each_engine_the_cheapest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"way": way, "model": "m", "processes": 1, "rows_per_second": rate} for way, rate in (("slow", 1), ("fast", 9))
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr("sys.argv", ["simulation", "--files", str(tmp_path / "a.jsonl")])
    simulation.main()
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in shown] == [
        "| engine",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        "| fast",
        "| slow",
    ]


def test_the_made_up_corpus_is_the_same_each_time_and_can_be_learned(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_corpus(tmp_path / name, 4000)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    corpus = load_corpus(CorpusSettings(data=str(tmp_path / "a.csv"), folds=2))
    assert describe_split(corpus)["duplicate_rows"] > 100
    test = corpus.rows("test")
    found = fit_linear(corpus).model.predict_logits(corpus.take(test)).argmax(axis=1)
    assert 0.54 < np.mean(found == corpus.labels[test]) < 0.95  # half of the rows have each label

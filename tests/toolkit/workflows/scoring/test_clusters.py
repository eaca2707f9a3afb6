"""Spark and Ray give every row the label that it gets here, and need nothing of hbt on their workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pyarrow
import pytest
from pyarrow import parquet

from exporters.loaders.command.label_file import ANSWER, BLANK, LABEL, PROBABILITY
from tests.helpers import Hbt
from toolkit import package as packages
from toolkit.data.tables import Table, write_table
from toolkit.utils.errors import InputError
from toolkit.workflows.predict_file import label_file
from toolkit.workflows.scoring import remote
from toolkit.workflows.scoring.clusters import engine_of, label_on_cluster
from toolkit.workflows.scoring.labeler import TableOptions

DEMO = Path(__file__).parents[4] / "models" / "demo-onnx-int8"
HOW = {"text_column": "text", "batch_size": 1, "added": [LABEL, PROBABILITY], "blank": BLANK.pattern}
TEXTS = ["ভালো ক্যামেরা", "", "একদম বাজে", 'one, "two"', "line\nbreak", "\u200b"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("spark", ("spark", None)),
        ("spark://master:7077", ("spark", "spark://master:7077")),
        ("spark://yarn", ("spark", "yarn")),
        ("spark://local[4]", ("spark", "local[4]")),
        ("ray", ("ray", None)),
        ("ray://head:10001", ("ray", "head:10001")),
    ],
)
def test_engines_are_named_with_their_cluster(given: str, expected: tuple[str, str | None]) -> None:
    assert engine_of(given) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "in", "--output", "out", "--engine", "dask"], "--engine dask: give spark"),
        (["--input", "in", "--output", "old", "--engine", "ray"], "old: exists"),
        (["--input", "mixed", "--output", "out", "--engine", "ray"], "of one kind; give a pattern"),
        (["text", "--engine", "ray"], "--engine labels files"),
    ],
)
def test_wrong_options_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hbt: Hbt,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.csv", "mixed/a.csv", "mixed/b.jsonl", "old/x"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("text\na\n")
    assert hbt("predict", str(DEMO), *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_engine_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"--engine ray needs ray: pip install 'hbt-toolkit\[ray\]'"):
        label_on_cluster("ray", DEMO, tmp_path / "*.csv", tmp_path / "out", TableOptions(), 1, False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_worker_needs_nothing_of_hbt(tmp_path: Path) -> None:
    """What is sent to it runs in a process that never imports hbt, with the package alone."""
    cloudpickle.register_pickle_by_value(remote)
    try:
        sent = cloudpickle.dumps(remote.Labeler)
    finally:
        cloudpickle.unregister_pickle_by_value(remote)
    (tmp_path / "sent").write_bytes(sent)
    script = """
import json, pickle, sys, pyarrow
from pathlib import Path
labeler = pickle.loads(Path("sent").read_bytes())(sys.argv[1], json.loads(sys.argv[2]))
found = labeler(pyarrow.RecordBatch.from_pydict({"text": json.loads(sys.argv[3])}))
assert not {"toolkit", "exporters", "hbt"} & {name.split(".")[0] for name in sys.modules}
print(json.dumps(found.to_pydict()))
"""
    arguments = [os.fspath(DEMO), json.dumps(HOW), json.dumps(TEXTS)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    model = packages.load(DEMO, 1)
    expected = iter(model.predict([TEXTS[i] for i in (0, 2, 3, 4)]))
    for row in range(len(TEXTS)):
        label, chance = next(expected) if row in (0, 2, 3, 4) else (None, None)
        assert (found["predicted_label"][row], found["probability"][row]) == (label, chance and round(chance, 6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "suffix"),
    [("spark", ".csv"), ("spark", ".jsonl"), ("ray", ".csv"), ("ray", ".jsonl"), ("ray", ".parquet")],
)
def test_a_local_cluster_gives_the_labels_of_one_process(tmp_path: Path, engine: str, suffix: str) -> None:
    pytest.importorskip({"spark": "pyspark", "ray": "ray"}[engine], reason=f"needs hbt-toolkit[{engine}]")
    texts = [f"{text} {number}" if text else text for number, text in enumerate(TEXTS * 30)]
    (tmp_path / "in").mkdir()
    for part in (0, 1):
        rows = range(part, len(texts), 2)
        table = Table("made", {"id": [f"r{i}" for i in rows], "text": [texts[i] for i in rows]})
        write_table(table, tmp_path / "in" / f"{part}{suffix}")
    found = label_on_cluster(engine, DEMO, tmp_path / "in", tmp_path / "out", TableOptions(), 2, False)
    assert (found.rows, found.files, found.processes) == (len(texts), 2, 2)
    labeled = parquet.read_table(sorted((tmp_path / "out").glob("*.parquet"))).to_pylist()
    model = packages.load(DEMO, 1)
    expected = {}
    for part in (0, 1):
        label_file(model, tmp_path / "in" / f"{part}{suffix}", tmp_path / f"{part}.parquet")
        expected |= {row["id"]: row for row in parquet.read_table(tmp_path / f"{part}.parquet").to_pylist()}
    assert sorted(row["id"] for row in labeled) == sorted(expected)
    for row in labeled:
        same = expected[row["id"]]
        assert (row["text"] or "", row["predicted_label"]) == (same["text"] or "", same["predicted_label"])
        assert row["probability"] == pytest.approx(same["probability"], abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.parquet", "1.parquet", "in", "out"]


def test_a_worker_answers_unsure_below_the_probability_of_the_package() -> None:
    batch = pyarrow.table({"text": TEXTS})
    plain = remote.Labeler(str(DEMO), HOW)(batch)
    below = sorted(filter(None, plain.column(PROBABILITY).to_pylist()))[-1]
    how = HOW | {"added": [LABEL, PROBABILITY, ANSWER], "below": below, "unsure": "unsure"}
    found = remote.Labeler(str(DEMO), how)(batch)
    assert found.column(LABEL) == plain.column(LABEL)
    labels, probabilities = (found.column(name).to_pylist() for name in (LABEL, PROBABILITY))
    expected = [label if p is None or p >= below else "unsure" for label, p in zip(labels, probabilities, strict=True)]
    assert found.column(ANSWER).to_pylist() == expected
    assert {"unsure", None} < {*expected}

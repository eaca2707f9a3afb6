"""`hbt drift` and the flags of `hbt predict`, on the demo package with a scope and a reference."""

import csv
import json
import shutil
from pathlib import Path

import cloudpickle
import pyarrow
import pytest
from pyarrow import parquet

from exporters.loaders.command.label_file import BLANK
from tests.helpers import Hbt, rehash, watched
from toolkit import package as packages
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.data.tables import Table, write_table
from toolkit.utils.errors import InputError
from toolkit.workflows.monitoring.drift import drift_of
from toolkit.workflows.scoring import remote
from toolkit.workflows.scoring.flags import flags_of
from toolkit.workflows.scoring.labeler import TableOptions

DEMO = Path(__file__).parents[4] / "models" / "demo-onnx-int8"
ENGLISH = "This is a sentence in another script, and there is nothing like it."
KNOWN = "ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে।"


@pytest.fixture(scope="module")
def demo() -> Corpus:
    return load_corpus(CorpusSettings(data="demo"))


@pytest.fixture(scope="module")
def made(demo: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "package"
    shutil.copytree(DEMO, folder)
    (folder / "scope.json").unlink(missing_ok=True)
    return watched(folder, demo)


def write_texts(file: Path, texts: list[str]) -> Path:
    write_table(Table("made", {"text": texts}), file)
    return file


def test_fresh_texts_are_no_drift_and_other_ones_are(
    made: Path, demo: Corpus, tmp_path: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = write_texts(tmp_path / "fresh.csv", demo.take(demo.rows("test")))
    assert hbt("drift", str(made), str(fresh), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["advice"]) == ("no drift", "no drift")
    assert found["rows"] == found["file_rows"] == len(demo.rows("test"))
    assert found["reference_rows"] == len(demo.rows("validation"))
    other = write_texts(tmp_path / "other.csv", [f"{ENGLISH} {i}" for i in range(200)])
    assert hbt("drift", str(made), str(other)) == 0
    shown = capsys.readouterr().out
    script = next(line for line in shown.splitlines() if line.strip().startswith("script"))
    assert "→ 100%" in script
    assert "loss not known" in script
    assert not shown.splitlines()[-1].startswith("no drift")


def test_long_files_are_sampled_and_empty_rows_left_out(made: Path, demo: Corpus, tmp_path: Path) -> None:
    file = write_texts(tmp_path / "long.jsonl", [*demo.texts[:500], *[""] * 500])
    found = drift_of(made, file, rows=600)
    assert found.file_rows == 1000
    assert 250 < found.report.rows < 350
    assert drift_of(made, file, rows=600).report == found.report, "the sample is the same each time"


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"words": ["a"]}, TableOptions(), "no text column"),
        ({"text": ["", " "]}, TableOptions(), "no text in column 'text'"),
        ({"text": ["a"]}, TableOptions(text_column="gone"), "no column 'gone'"),
    ],
)
def test_files_without_texts_are_one_line(
    made: Path, tmp_path: Path, columns: dict[str, list[str]], options: TableOptions, message: str
) -> None:
    write_table(Table("made", dict(columns)), tmp_path / "in.csv")
    with pytest.raises(InputError, match=message):
        drift_of(made, tmp_path / "in.csv", options)


def test_packages_without_or_with_a_broken_reference_are_one_line(
    made: Path, tmp_path: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_texts(tmp_path / "in.csv", [KNOWN] * 30)
    shutil.copytree(made, tmp_path / "package")
    manifest = json.loads((tmp_path / "package" / "manifest.json").read_text("utf-8"))
    good = manifest["evaluation"]["drift"]
    odd = {"lines": 3}, good | {"labels": 10**9}, good | {"cells": [[0, "x"]]}, []
    for broken, message in *((each, "malformed") for each in odd), (None, "has no reference to compare with"):
        manifest["evaluation"]["drift"] = broken
        (tmp_path / "package" / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        assert hbt("drift", str(tmp_path / "package"), str(file)) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.rstrip().endswith("make the package again with hbt compress")
        assert error.count("\n") == 1


def test_predict_marks_texts_out_of_scope(
    made: Path, tmp_path: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("predict", str(made), KNOWN, ENGLISH) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(KNOWN)
    assert second.endswith(f"{ENGLISH}\tout of scope: script")
    assert hbt("predict", str(made), KNOWN, ENGLISH, "--json") == 0
    found = [json.loads(line)["out_of_scope"] for line in capsys.readouterr().out.splitlines()]
    assert found == [None, "script"]
    write_texts(tmp_path / "in.csv", [KNOWN, "", ENGLISH])
    for processes in ("1", "2"):
        out = tmp_path / f"{processes}.csv"
        arguments = ("--input", str(tmp_path / "in.csv"), "--output", str(out), "--processes", processes)
        assert hbt("predict", str(made), *arguments) == 0
        with out.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["out_of_scope"] for row in rows] == ["", "", "script"]
        assert list(rows[0]) == ["text", "predicted_label", "probability", "out_of_scope"]
    arguments = ("--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.parquet"))
    assert hbt("predict", str(made), *arguments) == 0
    assert parquet.read_table(tmp_path / "out.parquet")["out_of_scope"].to_pylist() == [None, None, "script"]
    assert hbt("predict", str(made), "--input", str(tmp_path / "1.csv"), "--output", str(tmp_path / "again.csv")) == 2
    assert "already has a column" in capsys.readouterr().err


def test_a_scope_that_the_manifest_does_not_list_is_not_read(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "package")
    (tmp_path / "package" / "scope.json").unlink()
    rehash(tmp_path / "package")
    (tmp_path / "package" / "scope.json").write_text("[]", "utf-8")
    assert flags_of(tmp_path / "package").scope is None
    rehash(tmp_path / "package")
    with pytest.raises(InputError, match=r"scope\.json is malformed.*make the package again"):
        flags_of(tmp_path / "package")
    (tmp_path / "package" / "scope.json").write_text("{}", "utf-8")
    with pytest.raises(InputError, match=r"scope\.json has changed"):
        packages.load(tmp_path / "package")


def test_a_worker_of_a_cluster_adds_the_same_column(made: Path) -> None:
    flags = flags_of(made)
    how = {"text_column": "text", "batch_size": 1, "added": flags.columns, "blank": BLANK.pattern, "scope": flags.scope}
    batch = pyarrow.RecordBatch.from_pydict({"text": [KNOWN, "", ENGLISH]})
    found = remote.Labeler(str(made), how | {"below": None, "unsure": "unsure"})(batch)
    assert found.schema.names == ["text", *flags.columns]
    assert found["out_of_scope"].to_pylist() == [None, None, "script"]
    assert cloudpickle.loads(cloudpickle.dumps(flags.scope)).reasons([ENGLISH]) == ["script"]

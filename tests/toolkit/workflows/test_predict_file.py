import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tests.helpers import Finished
from toolkit import package
from toolkit.data.batches.reading import ROWS as CHUNK
from toolkit.data.tables import Table, read_table, write_table
from toolkit.utils.errors import InputError
from toolkit.workflows.predict_file import BATCH, label_file, refuse_blank

TEXTS = ["one", "", "three two", None, "  ", 'six, "seven"\nand eight', "\u200b", "nine"]
FILLED = [0, 2, 5, 7]


class Echo:
    """Predicts the first word of a text as its label, so that swapped rows are detected."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        return np.zeros((len(texts), 2))

    def predict(self, texts: Sequence[str], batch_size: int = 1) -> list[tuple[str, float]]:
        self.batches.append(len(texts))
        self.batch_size = batch_size
        return [(text.split()[0], 1 / (1 + len(text))) for text in texts]


def table(texts: Sequence[Any]) -> Table:
    return Table("made", {"id": list(range(len(texts))), "text": list(texts), "নাম": ["ক"] * len(texts)})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("out_suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_row_is_kept_in_order_with_its_columns(tmp_path: Path, suffix: str, out_suffix: str) -> None:
    write_table(table(TEXTS), tmp_path / f"in{suffix}")
    assert label_file(Echo(), tmp_path / f"in{suffix}", tmp_path / f"out{out_suffix}", None) == len(TEXTS)  # type: ignore[arg-type]
    found = read_table(tmp_path / f"out{out_suffix}").columns
    assert list(found) == ["id", "text", "নাম", "predicted_label", "probability"]
    assert [str(value) for value in found["id"]] == [str(i) for i in range(len(TEXTS))]
    assert [value or "" for value in found["text"]] == [text or "" for text in TEXTS]
    labels = [value or None for value in found["predicted_label"]]
    assert labels == ["one", None, "three", None, None, "six,", None, "nine"]
    probabilities = [None if value in (None, "") else float(value) for value in found["probability"]]
    for row, text in enumerate(TEXTS):
        expected = 1 / (1 + len(text or "")) if row in FILLED else None
        assert probabilities[row] == (None if expected is None else pytest.approx(expected, abs=1e-6))


def test_column_types_of_a_parquet_file_are_kept(tmp_path: Path) -> None:
    columns = {"text": ["a", "b"], "n": [1, 2], "x": [0.5, None], "deep": [[1], [2, 3]]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "in.parquet")
    label_file(Echo(), tmp_path / "in.parquet", tmp_path / "out.parquet", None)  # type: ignore[arg-type]
    found = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert {name: found[name] for name in columns} == columns
    assert found["predicted_label"] == ["a", "b"]


def test_json_rows_keep_values_that_are_not_text(tmp_path: Path) -> None:
    rows = [{"text": "a", "n": 1, "deep": {"k": [None, True]}}, {"text": "b"}]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    label_file(Echo(), tmp_path / "in.jsonl", tmp_path / "out.jsonl", None)  # type: ignore[arg-type]
    first, second = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert (first["n"], first["deep"], first["predicted_label"]) == (1, {"k": [None, True]}, "a")
    assert (second["n"], second["predicted_label"]) == (None, "b")


@pytest.mark.parametrize("rows", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_files_longer_than_a_batch_keep_their_order(tmp_path: Path, rows: int) -> None:
    write_table(table([f"w{i} x" for i in range(rows)]), tmp_path / "in.csv")
    model = Echo()
    label_file(model, tmp_path / "in.csv", tmp_path / "out.csv", None)  # type: ignore[arg-type]
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as lines:
        assert [row["predicted_label"] for row in csv.DictReader(lines)] == [f"w{i}" for i in range(rows)]
    assert max(model.batches) <= CHUNK
    assert model.batch_size == BATCH


class Dynamic(Echo):
    """Its scores depend on the batch."""

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        return np.full((len(texts), 2), batch_size / 100)


def test_texts_are_scored_alone_where_a_batch_changes_their_scores(tmp_path: Path) -> None:
    write_table(table([f"w{i} x" for i in range(40)]), tmp_path / "in.csv")
    model = Dynamic()
    label_file(model, tmp_path / "in.csv", tmp_path / "out.csv", None)  # type: ignore[arg-type]
    assert model.batch_size == 1


def test_a_file_gets_the_labels_that_its_texts_get_alone(at_home: Finished, tmp_path: Path) -> None:
    texts = [f"{'ভালো ' * (i % 9)}ক্যামেরা {i}" for i in range(70)]
    write_table(table(texts), tmp_path / "in.jsonl")
    model = package.load(at_home.package, 1)
    label_file(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl", None)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    for row, (label, probability) in zip(found, model.predict(texts), strict=True):
        assert row["predicted_label"] == label
        assert row["probability"] == pytest.approx(probability, abs=2e-5)


def test_the_text_column_can_be_named(tmp_path: Path) -> None:
    write_table(Table("made", {"text": ["no"], "body": ["yes"]}), tmp_path / "in.csv")
    label_file(Echo(), tmp_path / "in.csv", tmp_path / "out.csv", "body")  # type: ignore[arg-type]
    assert read_table(tmp_path / "out.csv").columns["predicted_label"] == ["yes"]


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1"]
PLAIN = ["-5", "+8801711", "-1.5e3", "a=b", "'quoted", "ভালো - না", ""]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_no_cell_of_a_spreadsheet_is_a_formula(tmp_path: Path, suffix: str) -> None:
    cells = [*FORMULAS, *PLAIN]
    write_table(Table("made", {"=id": cells, "text": cells}), tmp_path / "in.jsonl")
    label_file(Echo(), tmp_path / "in.jsonl", tmp_path / f"out{suffix}", None)  # type: ignore[arg-type]
    found = read_table(tmp_path / f"out{suffix}").columns
    assert list(found) == ["'=id", "text", "predicted_label", "probability"]
    assert found["text"] == found["'=id"] == [*(f"'{cell}" for cell in FORMULAS), *PLAIN]
    assert found["predicted_label"][:3] == ["'=1+1", "'+cmd|'", "'-2+3"]
    assert found["predicted_label"][len(FORMULAS)] == "-5"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_other_formats_keep_every_cell(tmp_path: Path, suffix: str) -> None:
    write_table(Table("made", {"text": FORMULAS}), tmp_path / "in.csv")
    label_file(Echo(), tmp_path / "in.csv", tmp_path / f"out{suffix}", None)  # type: ignore[arg-type]
    assert read_table(tmp_path / f"out{suffix}").columns["text"] == FORMULAS


def test_the_number_of_blank_rows_is_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(table(TEXTS), tmp_path / "in.csv")
    label_file(Echo(), tmp_path / "in.csv", tmp_path / "out.csv", None)  # type: ignore[arg-type]
    assert capsys.readouterr().err.endswith("in.csv: 4 of 8 rows have no text; their label is left empty\n")


@pytest.mark.parametrize("texts", [[""], ["a", " \n"], ["\u200b"]])
def test_a_blank_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match=rf"text {len(texts)} is blank"):
        refuse_blank(texts)


@pytest.mark.parametrize(
    ("columns", "out", "text_column", "message"),
    [
        ({"text": ["a"]}, "out.xlsx", None, r"--output .*out\.xlsx: unknown kind of file"),
        ({"text": ["a"]}, "out", None, "unknown kind of file"),
        ({"words": ["a"]}, "out.csv", None, "--text-column"),
        ({"text": ["a"]}, "out.csv", "body", "no column 'body'"),
        ({"text": ["a"], "predicted_label": ["x"]}, "out.csv", None, "already has a column 'predicted_label'"),
        ({"text": ["a"], "probability": ["x"]}, "out.csv", None, "already has a column 'probability'"),
        ({"text": []}, "out.csv", None, "no rows"),
        ({"text": ["a"]}, "no/such/folder/out.csv", None, "cannot be written"),
    ],
)
def test_an_invalid_file_is_one_line_and_no_output(
    tmp_path: Path, columns: dict[str, list[Any]], out: str, text_column: str | None, message: str
) -> None:
    write_table(Table("made", columns), tmp_path / "in.csv")
    with pytest.raises(InputError, match=message) as caught:
        label_file(Echo(), tmp_path / "in.csv", tmp_path / out, text_column)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_the_file_of_a_spreadsheet_keeps_its_separator_and_encoding(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes("Kommentar;Nr\nGrüße, alle;1\n".encode("utf-8-sig"))
    label_file(Echo(), tmp_path / "in.csv", tmp_path / "out.csv")  # type: ignore[arg-type]
    lines = (tmp_path / "out.csv").read_bytes().decode("utf-8").splitlines()
    assert lines[0] == "\ufeffKommentar;Nr;predicted_label;probability"
    assert lines[1].startswith("Grüße, alle;1;")


def test_a_text_file_has_one_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes("one, two\r\n\r\nভালো\r\n".encode())
    assert label_file(Echo(), tmp_path / "in.txt", tmp_path / "out.csv") == 3  # type: ignore[arg-type]
    assert read_table(tmp_path / "out.csv").columns["text"] == ["one, two", "", "ভালো"]

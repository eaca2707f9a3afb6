"""Files of texts that are read in parts hold what a reader of the whole file finds."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from toolkit.data.batches import layout as layouts, reading
from toolkit.data.batches.layout import survey
from toolkit.data.batches.reading import all_columns, first_texts, read_batches, texts_of
from toolkit.data.decoding import SAMPLE, decode, encoding_of
from toolkit.data.tables import Table, read_table, write_table
from toolkit.utils.errors import InputError

TEXTS = ["one", "", "two, three", 'a "quote"', "line\nbreak", "ভালো না", "\u2028x", "'=1"] * 3
COLUMNS: dict[str, list[Any]] = {"n": [str(i) for i in range(len(TEXTS))], "text": TEXTS}


def read(file: Path, **options: Any) -> dict[str, list[Any]]:
    found = survey(file, **options)
    columns: dict[str, list[Any]] = {name: [] for name in found.columns}
    for batch in read_batches(found):
        for name, values in all_columns(batch, found).items():
            columns[name] += values
    return columns


@pytest.mark.parametrize("rows", [1, 5, 1000])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_batches_hold_every_row_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, rows: int
) -> None:
    monkeypatch.setattr(reading, "ROWS", rows)
    write_table(Table("made", COLUMNS), tmp_path / f"a{suffix}")
    assert read(tmp_path / f"a{suffix}") == read_table(tmp_path / f"a{suffix}").columns == COLUMNS
    sizes = [batch.num_rows for batch in read_batches(survey(tmp_path / f"a{suffix}"))]
    assert max(sizes) == min(rows, len(TEXTS))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_batch_of_long_texts_has_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(reading, "CHARACTERS", 1000)
    write_table(Table("made", {"text": ["x" * 600] * 10}), tmp_path / f"a{suffix}")
    batches = list(read_batches(survey(tmp_path / f"a{suffix}")))
    assert len(batches) >= 3
    assert sum(batch.num_rows for batch in batches) == 10


@pytest.mark.parametrize(
    ("encoding", "text"), [("utf-16", "größe ভালো"), ("utf-8-sig", "größe ভালো"), ("cp1251", "съешь ещё этих булок")]
)
def test_encodings_are_recognized_as_in_a_file_that_is_read_at_once(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(f"id;text\n1;{text}\n2;{text}\n".encode(encoding))
    found = survey(tmp_path / "a.csv")
    table = read_table(tmp_path / "a.csv")
    assert (found.dialect, read(tmp_path / "a.csv")) == (table.dialect, table.columns)
    assert found.dialect.separator == ";"


@pytest.mark.parametrize(("encoding", "letters"), [("cp1252", "größe für süße Bären"), ("utf-8", "größe ভালো")])
def test_the_encoding_of_a_large_file_is_found_from_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoding: str, letters: str
) -> None:
    monkeypatch.setattr("toolkit.data.decoding.SAMPLE", 4000)
    monkeypatch.setattr("toolkit.data.decoding._PART", 1001)
    content = ("text\n" + "plain\n" * 1000 + f"{letters}\n" * 400).encode(encoding)
    (tmp_path / "a.csv").write_bytes(content)
    assert encoding_of(tmp_path / "a.csv") == decode(tmp_path / "a.csv", content)[1] == encoding
    if encoding == "cp1252":
        large, whole = capsys.readouterr().err.splitlines()
        assert large == whole
        assert "line 1002 has" in large
    assert read(tmp_path / "a.csv")["text"][1000] == letters


def test_a_large_file_that_is_not_in_its_encoding_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.data.decoding.SAMPLE", 1000)
    monkeypatch.setattr("toolkit.data.decoding._PART", 64)
    (tmp_path / "a.csv").write_bytes(b"text\n" + b"plain\n" * 500 + b"\xff\n")
    with pytest.raises(InputError, match=r"a\.csv: line 502 is not utf-8; save"):
        encoding_of(tmp_path / "a.csv", "utf-8")
    assert SAMPLE > 2**20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,text\n1,a\n2,b,c\n", "line 3 has 3 fields and the header 2"),
        ("a.csv", b'text\n"a\n', "line 2 is malformed"),
        ("a.csv", b"text,text\na,b\n", "two columns have the same name"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"text\n", "no rows"),
        ("a.csv", b"words\na\n", "no text column found by name among words"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text"\n', "line 3 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "line 2 is not a JSON object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', "line 2 contains a lone surrogate"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n{"text": 5}\n', "row 2 of column 'text' contains int, not text"),
        ("a.parquet", b"PAR1", "not a Parquet file"),
        ("a.doc", b"text", "unknown file type"),
    ],
)
def test_a_bad_row_is_one_line_with_file_and_row(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        survey(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_parquet_types_are_kept_and_a_column_of_numbers_is_no_text(tmp_path: Path) -> None:
    texts = pyarrow.array(["a", None, "b", "a"]).dictionary_encode()
    parquet.write_table(pyarrow.table({"text": texts, "n": [1, 2, 3, 4]}), tmp_path / "a.parquet")
    found = survey(tmp_path / "a.parquet")
    (batch,) = read_batches(found)
    assert texts_of(batch, found) == ["a", "", "b", "a"]
    with pytest.raises(InputError, match="row 0 of column 'n' contains int64, not text"):
        survey(tmp_path / "a.parquet", "n")


def test_a_schema_for_parquet_is_found_over_all_rows_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_INFERRED", 2)
    rows = [{"text": "a"}, {"n": 1}, {"n": 2.5}, {"deep": [1]}, {"deep": [None, 2]}, {"n": None}]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    schema = survey(file, parquet_out=tmp_path / "b.parquet").schema
    assert {field.name: str(field.type) for field in schema} == {
        "text": "string",
        "n": "double",
        "deep": "list<item: int64>",
    }
    file.write_text("\n".join(map(json.dumps, [{"text": "a", "n": 1}] * 3 + [{"text": "a", "n": "x"}])))
    with pytest.raises(InputError, match=r"b\.parquet: column 'n' has values that Parquet cannot hold"):
        survey(file, parquet_out=tmp_path / "b.parquet")


def test_a_file_that_changes_between_survey_and_reading_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text\na\nb\n")
    found = survey(file)
    file.write_text("text\na\n")
    with pytest.raises(InputError, match="has changed while it was read"):
        list(read_batches(found))


def test_first_texts_leaves_out_what_is_blank(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\none\r\n \ntwo\nthree\n")
    assert first_texts(survey(tmp_path / "a.txt"), 2) == ["one", "two"]

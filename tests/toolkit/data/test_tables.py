import csv
import json
from pathlib import Path

import pytest

from toolkit.data.tables import Table, read_table, write_table
from toolkit.utils.errors import InputError


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\nভালো,1\nকী,0\n"),
        ("a.CSV", "text,label\r\nভালো,1\r\nকী,0"),
        ("a.csv", "\ufefftext,label\nভালো,1\n\nকী,0\n"),
        ("a.csv", '"text","label"\n"ভালো","1"\n"কী","0"\n'),
        ("a.tsv", "text\tlabel\nভালো\t1\nকী\t0\n"),
        ("a.jsonl", '{"text": "ভালো", "label": "1"}\n\n{"label": "0", "text": "কী"}'),
        ("a.ndjson", '{"text": "ভালো", "label": "1"}\r\n{"text": "কী", "label": "0"}\r\n'),
    ],
)
def test_every_format_gives_the_same_table(tmp_path: Path, name: str, content: str) -> None:
    assert read_table(written(tmp_path, name, content)).columns == {"text": ["ভালো", "কী"], "label": ["1", "0"]}


def test_parquet_gives_the_same_table(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"text": ["ভালো", None], "label": [1, 0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").columns == columns


@pytest.mark.parametrize("text", ["a,b", 'he said "no"', "two\nlines", "a\r\nb", "", "  ", "x" * 200_000, "\u2028\x85"])
def test_a_text_is_read_as_it_was_written(tmp_path: Path, text: str) -> None:
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([["text", "label"], [text, "1"]])
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text, "label": "1"}, ensure_ascii=False), "utf-8")
    for name in ("a.csv", "a.jsonl"):
        assert read_table(tmp_path / name).columns["text"] == [text]


def test_a_missing_json_key_is_a_missing_value(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": "b", "label": null}\n{"label": NaN}')
    columns = read_table(file).columns
    assert columns["text"] == ["a", "b", None]
    assert columns["label"][:2] == [None, None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", "text,label\na,1\n", "unknown file type"),
        ("a", "text,label\na,1\n", "unknown file type"),
        ("a.csv", "", "no rows"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.csv", "text,label\n\n\n", "no rows"),
        ("a.jsonl", "\n \n", "no rows"),
        ("a.csv", "text,label\na,1\nb,c,0\n", "line 3 has 3 fields and the header 2"),
        ("a.csv", "text,label\na\n", "line 2 has 1 fields"),
        ("a.csv", 'text,label\n"a\nb",1\nc\n', "line 4 has 1 fields"),
        ("a.csv", 'text,label\na,1\n"b,0\nc,1\n', "is malformed"),
        ("a.csv", 'text,label\n"a"b,1\n', "line 2 is malformed"),
        ("a.csv", "text,text\na,1\n", "two columns have the same name"),
        ("a.csv", "text,label\nপ,1\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("a.csv", b"text,label\na,1\ncaf\xe9,0\n", "line 3 is not UTF-8"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', "line 2 is not a JSON object"),
        ("a.jsonl", '{"text": "cut \\ud83d"}\n', "line 1 contains a lone surrogate"),
        ("a.jsonl", '{"deep": {"k": ["cut \\ud83d"]}}\n', "line 1 contains a lone surrogate"),
        ("a.parquet", "text,label\n", "not a Parquet file"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_table(written(tmp_path, name, content))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.csv", "."])
def test_a_missing_file_or_a_folder_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("values", [["a", 1], [1, "a"], [[1], "a"], [{}, {}], [2**70, 1]])
def test_mixed_values_do_not_fit_into_parquet(tmp_path: Path, values: list[object]) -> None:
    columns = {"text": ["a", "b"], "n": values}
    with pytest.raises(InputError, match=r"out\.parquet: column 'n' .* write \.jsonl"):
        write_table(Table("made", columns), tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []
    write_table(Table("made", columns), tmp_path / "out.jsonl")
    assert read_table(tmp_path / "out.jsonl").columns == columns


def test_a_table_without_columns_has_no_rows() -> None:
    assert len(Table("made here", {})) == 0

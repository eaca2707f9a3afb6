import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from toolkit.data.tables import Dialect, Table, read_table, write_table
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
        ("a.docx", "text,label\na,1\n", "unknown file type"),
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
        ("a.csv", "text,label\nপ,1\n".encode("utf-16")[:-1], "is not utf-16; save the file as UTF-8"),
        ("a.csv", b"text,label\na,1\n\x00\xff\xfe\x81,0\n", "line 3 is not UTF-8"),
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


GERMAN = "Kommentar;Klasse\nSchöne Grüße, alles gut;nett\n„Öl“ kostet 5 €;sachlich\n"
GERMAN_COLUMNS = {"Kommentar": ["Schöne Grüße, alles gut", "„Öl“ kostet 5 €"], "Klasse": ["nett", "sachlich"]}


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("cp1252", "cp1252"),
    ],
)
@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_files_of_spreadsheets_are_read_and_written_as_they_are(
    tmp_path: Path, encoding: str, found: str, separator: str
) -> None:
    raw = GERMAN.replace(";", separator).encode(encoding)
    table = read_table(written(tmp_path, "a.csv", raw))
    assert table.columns == GERMAN_COLUMNS
    assert table.dialect == Dialect(found, separator)
    write_table(table, tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == raw


def test_a_guessed_encoding_is_shown_with_the_lines_it_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_table(written(tmp_path, "a.csv", GERMAN.encode("cp1252")))
    shown = capsys.readouterr().err
    assert "is not UTF-8; read as cp1252, a guess: line 2 has 'Schöne', line 3 has '„Öl“'" in shown
    assert "if that is wrong, save the file as UTF-8" in shown and shown.count("\n") == 1


def test_a_russian_file_of_a_legacy_encoding_is_read(tmp_path: Path) -> None:
    texts = ["Это очень хороший фильм, всем советую", "Ужасная погода сегодня, дождь и ветер", "Спасибо за помощь"]
    lines = "\n".join(["текст;метка", *(f"{text};{i}" for i, text in enumerate(texts))])
    assert read_table(written(tmp_path, "a.csv", lines.encode("cp1251"))).columns["текст"] == texts


def test_a_given_encoding_and_separator_are_used(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "text|a;label|b\nzażółć|1;x|2\n".encode("cp1250"))
    assert read_table(file, "cp1250", ";").columns == {"text|a": ["zażółć|1"], "label|b": ["x|2"]}
    with pytest.raises(InputError, match="line 2 is not utf-8; save the file as UTF-8"):
        read_table(file, "utf-8", ";")


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        ("text,label\na;b;c,1\nd;e;f,0\n", ","),
        ("text;label\na, b;1\nc;0\n", ";"),
        ("text\na;b\nc\n", ","),  # one column: a comma, which is nowhere
        ('text;label\n"one; two";1\n', ";"),
        ("text,label;x\na,b;c\n", ","),
    ],
)
def test_the_separator_is_the_one_that_makes_rows_of_equal_length(tmp_path: Path, content: str, separator: str) -> None:
    assert read_table(written(tmp_path, "a.csv", content)).dialect.separator == separator


def test_a_character_that_the_encoding_lacks_makes_the_output_utf_8(tmp_path: Path) -> None:
    write_table(Table("x", {"text": ["ভালো"], "label": ["é"]}, Dialect("cp1252", ";")), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == "\ufefftext;label\nভালো;é\n".encode()


@pytest.mark.parametrize("suffix", [".xlsx", ".ods"])
def test_the_first_sheet_of_a_spreadsheet_is_read(tmp_path: Path, suffix: str) -> None:
    """The files are written here from the XML of their formats."""
    pytest.importorskip("python_calamine")
    file = tmp_path / f"a{suffix}"
    (write_xlsx if suffix == ".xlsx" else write_ods)(file, [["text", "label"], ["ভালো, না?", 1], ["two", 0.5]])
    assert read_table(file).columns == {"text": ["ভালো, না?", "two"], "label": ["1", "0.5"]}


@pytest.mark.parametrize("rows", [[["text", ""], ["a", "b"]], [["text", "text"], ["a", "b"]], []])
def test_a_spreadsheet_without_a_header_is_refused(tmp_path: Path, rows: list[list[str]]) -> None:
    pytest.importorskip("python_calamine")
    write_xlsx(tmp_path / "a.xlsx", rows)
    with pytest.raises(InputError, match=r"no rows|each column a name of its own"):
        read_table(tmp_path / "a.xlsx")


def test_a_file_that_is_no_spreadsheet_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("python_calamine")
    with pytest.raises(InputError, match="cannot be read as a spreadsheet"):
        read_table(written(tmp_path, "a.xlsx", "text,label\na,b\n"))


def write_xlsx(file: Path, rows: list[list[Any]]) -> None:
    def cell(value: Any) -> str:
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
        return f"<c><v>{value}</v></c>"

    sheet = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    with zipfile.ZipFile(file, "w") as out:
        out.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
            f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/></Types>',
        )
        link = f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" Type="{office}/%s" Target="%s"/>'
        out.writestr("_rels/.rels", link % ("officeDocument", "xl/workbook.xml") + "</Relationships>")
        out.writestr("xl/_rels/workbook.xml.rels", link % ("worksheet", "worksheets/sheet1.xml") + "</Relationships>")
        out.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets>'
            "</workbook>",
        )
        out.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{sheet}</sheetData></worksheet>'
        )


def write_ods(file: Path, rows: list[list[Any]]) -> None:
    def cell(value: Any) -> str:
        kind = "string" if isinstance(value, str) else f'float" office:value="{value}'
        return f'<table:table-cell office:value-type="{kind}"><text:p>{value}</text:p></table:table-cell>'

    table = "".join(f"<table:table-row>{''.join(map(cell, row))}</table:table-row>" for row in rows)
    spaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text")
    )
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    manifest = "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("mimetype", kind)
        out.writestr(
            "META-INF/manifest.xml",
            f'<manifest:manifest xmlns:manifest="{manifest}"><manifest:file-entry manifest:full-path="/" '
            f'manifest:media-type="{kind}"/></manifest:manifest>',
        )
        out.writestr(
            "content.xml",
            f'<office:document-content {spaces}><office:body><office:spreadsheet><table:table table:name="a">{table}'
            "</table:table></office:spreadsheet></office:body></office:document-content>",
        )

"""The command line of how_to_load.py, and that its code runs on every Python that a package supports."""

import ast
import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.device import read_device
from exporters.loaders import onnx
from exporters.loaders.command import label_file as files, machine, main
from exporters.loaders.common import Model
from exporters.loaders.compose import Loader, command_line_source, loader_source
from tests.exporters.test_loader_file import LOADERS
from tests.helpers import contents, rehash
from toolkit.data import corpus, tables
from toolkit.data.normalization import normalize
from toolkit.utils.machine import FLAGS
from toolkit.workflows.predict_file import label_file as label_file_of_hbt

DEMO = Path(__file__).parents[2] / "models" / "demo-onnx-int8"
SOURCES: dict[str, Callable[[], str]] = {name: lambda name=name: loader_source(name) for name in LOADERS}  # type: ignore[misc]
SOURCES["command line"] = command_line_source
NEWER = {
    "file_digest": "3.11", "pairwise": "3.10", "batched": "3.12", "bit_count": "3.10", "StrEnum": "3.11",
    "Self": "3.11", "TypeAlias": "3.10", "TypeGuard": "3.10", "ExceptionGroup": "3.11", "add_note": "3.11",
    "hardlink_to": "3.10",
    "stdlib_module_names": "3.10", "orig_argv": "3.10", "walk_packages": "3.10", "aiter": "3.10", "anext": "3.10",
}  # fmt: skip
"""Names that Python 3.9 does not have."""


@pytest.mark.parametrize("name", SOURCES)
def test_the_code_of_a_package_runs_on_python_3_9(name: str) -> None:
    tree = ast.parse(SOURCES[name](), feature_version=(3, 9))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Match):
            found.add("match")
        if isinstance(node, ast.Name | ast.Attribute):
            found |= {node.id if isinstance(node, ast.Name) else node.attr} & NEWER.keys()
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {word.arg for word in node.keywords}
            if (called == "zip" and "strict" in keywords) or (
                called == "dataclass" and keywords & {"slots", "kw_only"}
            ):
                found.add(f"{called} with {keywords}")
            if called in ("isinstance", "issubclass") and isinstance(node.args[1], ast.BinOp):
                found.add(ast.unparse(node))
        if isinstance(node, ast.Assign):  # annotations are never evaluated, aliases of types are
            parts = {ast.unparse(part) for part in ast.walk(node.value) if isinstance(part, ast.BinOp)}
            found |= {part for part in parts if part.endswith("| None")}
    assert found == set()
    assert ast.unparse(tree.body[1]) == "from __future__ import annotations"


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.12", "3.13"])
def test_the_code_compiles_and_prints_its_help_on_other_pythons(version: str, tmp_path: Path) -> None:
    python = next(iter(sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))), None)
    found = shutil.which(f"python{version}") if python is None else str(python)
    if found is None:
        pytest.skip(f"no Python {version} here")
    (tmp_path / "command_line.py").write_text(command_line_source(), "utf-8")
    for name in LOADERS:
        (tmp_path / f"{name}.py").write_text(loader_source(name), "utf-8")
    done = subprocess.run([found, "-m", "compileall", "-q", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    code = "import pathlib, command_line as c; c.describe_machine(); c.run(None, pathlib.Path())"
    done = subprocess.run([found, "-c", code, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--self-test" in done.stdout


@pytest.mark.parametrize("command", [["check", "--select", "E,F,W,I,B,UP,SIM,RUF100"], ["format", "--check"]])
def test_the_code_of_a_package_is_clean(tmp_path: Path, command: list[str]) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    for name, source in SOURCES.items():
        (tmp_path / f"{name.replace(' ', '_')}.py").write_text(source(), "utf-8")
    words = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", "--target-version", "py39"]
    done = subprocess.run([*words, str(tmp_path)], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SOURCES)
def test_no_two_parts_of_a_source_define_the_same_name(name: str) -> None:
    body = ast.parse(SOURCES[name]()).body
    defined = Counter(each.name for each in body if isinstance(each, ast.FunctionDef | ast.ClassDef))
    assert [each for each, count in defined.items() if count > 1] == []


def test_the_command_line_needs_only_the_standard_library() -> None:
    assert "exporters" not in command_line_source()
    assert len(command_line_source().splitlines()) < 640
    modules = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in ast.walk(ast.parse(command_line_source()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    others = {module for module in modules if module.split(".")[0] not in sys.stdlib_module_names}
    assert others == {"psutil"}  # on Windows, if it is there


def test_constants_that_packages_repeat_are_those_of_hbt() -> None:
    assert files.TEXT_COLUMNS == corpus.TEXT_COLUMNS
    assert machine.FLAGS == FLAGS
    assert (files.SEPARATORS, files.SNIFFED) == (tables.SEPARATORS, tables.SNIFFED)


@pytest.mark.parametrize("start", range(0, 0x110000, 0x8000))
def test_what_is_blank_for_a_package_is_blank_for_hbt(start: int) -> None:
    for code in range(start, start + 0x8000):
        if not 0xD800 <= code < 0xE000:
            assert files.is_blank(chr(code)) == (not normalize(chr(code))), hex(code)


@pytest.fixture(scope="module")
def demo() -> Model:
    return onnx.load(DEMO)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in models/ with the loader of today. Do not change it: copy it."""
    folder = shutil.copytree(DEMO, tmp_path_factory.mktemp("shipped") / "package")
    (folder / "how_to_load.py").write_text(loader_source("onnx"), "utf-8")
    (folder / "command_line.py").write_text(command_line_source(), "utf-8")
    rehash(folder)
    return folder


def call(folder: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run how_to_load.py; it must leave its folder as it is."""
    before = sorted(folder.rglob("*"))
    command = [sys.executable, str(folder / "how_to_load.py"), *words]
    done = subprocess.run(command, cwd=folder.parent, input=stdin, capture_output=True, timeout=120)
    assert sorted(folder.rglob("*")) == before
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_each_line_of_standard_input_gets_a_line(shipped: Path, demo: Model) -> None:
    texts = ["ভালো", "", "bad\tthing", "-", "\u200b"]
    done = call(shipped, "-", stdin="\n".join(texts).encode() + b"\r\n")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("\t", 2) for line in done.stdout.splitlines()]
    labels = [None if files.is_blank(text) else demo.predict([text])[0] for text in texts]
    assert [line[:2] for line in lines] == [
        ["", ""] if each is None else [each[0], f"{each[1]:.4f}"] for each in labels
    ]
    assert [line[2] for line in lines][:4] == texts[:4]


def test_input_that_is_not_utf_8_is_one_line(shipped: Path) -> None:
    done = call(shipped, "-", stdin=b"good\n\xff\n")
    assert (done.returncode, done.stderr) == (2, "line 2 of the input is not UTF-8\n")


ROWS = [
    ["id", "Comment", "note"],
    ["1", "ভালো, খুব", "=1+1"],
    ["2", "", "x"],
    ["-3", "line\nbreak", "a\rb"],
    ["4", "@bad", "\u200b"],
    *([str(i), f"comment number {i}", "n"] for i in range(300)),
]


def write_csv(file: Path, rows: list[list[str]], delimiter: str = ",") -> Path:
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        csv.writer(out, delimiter=delimiter).writerows(rows)
    return file


def test_a_file_gets_the_columns_and_cells_of_hbt_predict(shipped: Path, demo: Model, tmp_path: Path) -> None:
    source, out = write_csv(tmp_path / "in.csv", ROWS), tmp_path / "out.csv"
    done = call(shipped, "--file", str(source), "--output", str(out))
    assert (done.returncode, done.stdout) == (0, f"{len(ROWS) - 1} rows labeled: {out}\n")
    assert "1 of 304 rows have no text" in done.stderr
    label_file_of_hbt(demo, source, tmp_path / "hbt.csv", None)
    assert_same_cells(out, tmp_path / "hbt.csv")
    assert out.read_bytes().count(b"\n") == (tmp_path / "hbt.csv").read_bytes().count(b"\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["hbt.csv", "in.csv", "out.csv"]


def assert_same_cells(file: Path, other: Path) -> None:
    """All cells are equal, probabilities within rounding: batches end elsewhere."""
    found, expected = (list(csv.reader(each.open(newline="", encoding="utf-8"))) for each in (file, other))
    assert [row[:-1] for row in found] == [row[:-1] for row in expected]
    for row, same in zip(found[1:], expected[1:], strict=True):
        assert row[-1] == same[-1] or float(row[-1]) == pytest.approx(float(same[-1]), abs=1.1e-5)


def test_a_tsv_file_and_a_named_column(demo: Model, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.tsv", [["a", "b"], ["good", "bad"]], "\t")
    assert files.label_file(demo, source, tmp_path / "out.tsv", "b") == (1, 0)
    header, row = (line.split("\t") for line in (tmp_path / "out.tsv").read_text("utf-8").splitlines())
    assert header == ["\ufeffa", "b", "predicted_label", "probability"]  # the mark of the input stays
    assert (row[2], float(row[3])) == (
        demo.predict(["bad"])[0][0],
        pytest.approx(demo.predict(["bad"])[0][1], abs=1e-6),
    )


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_of_a_csv_file_is_found_and_kept(demo: Model, tmp_path: Path, separator: str) -> None:
    rows = [["id", "text"], ["1", "a, b; c | d"], ["2", "plain"], ["3", "zero \x00 inside"]]
    source = write_csv(tmp_path / "in.csv", rows, separator)
    assert files.label_file(demo, source, tmp_path / "out.csv", None) == (3, 0)
    label_file_of_hbt(demo, source, tmp_path / "hbt.csv", None)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8-sig") as stream:
        found = list(csv.reader(stream, delimiter=separator))
    assert [row[:2] for row in found] == rows
    assert (tmp_path / "out.csv").read_text("utf-8-sig").splitlines()[0] == separator.join(
        ["id", "text", "predicted_label", "probability"]
    )
    assert len((tmp_path / "out.csv").read_bytes()) == len((tmp_path / "hbt.csv").read_bytes())
    files.label_file(demo, source, tmp_path / "out.tsv", None)
    assert (tmp_path / "out.tsv").read_text("utf-8-sig").startswith("id\ttext\t")


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        (b"text\ngood\n\xff\n", None, "line 3 is not UTF-8; save the file as UTF-8"),
        ("text\na\n".encode("utf-16"), None, "line 1 is not UTF-8"),
        ("text\na\n".encode("utf-16-le"), None, "line 1 is not UTF-8"),
        (b"id;text\n1;a;b\n", None, r"no text column among id;text"),
        (b'text\n"a\n', None, "malformed"),
        (b"text,b\na\n", None, "line 2 has 1 fields and the header 2"),
        (b"", None, "no rows"),
        (b"text\n", None, "no rows"),
        (b"a,b\n1,2\n", None, "no text column among a, b; name it with --text-column"),
        (b"a,b\n1,2\n", "c", "no column 'c'"),
        (b"text,probability\n1,2\n", None, "already has a column 'probability'"),
    ],
)
def test_a_faulty_file_leaves_nothing_behind(
    demo: Model, tmp_path: Path, content: bytes, column: str | None, message: str
) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.label_file(demo, tmp_path / "in.csv", tmp_path / "out.csv", column)
    assert [file.name for file in tmp_path.iterdir()] == ["in.csv"]


def test_nothing_is_overwritten(demo: Model, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [["text"], ["a"]])
    for out, message in (("in.csv", "exists"), ("out.xlsx", "ends in"), ("missing/out.csv", "No such file")):
        with pytest.raises((ValueError, OSError), match=message):
            files.label_file(demo, source, tmp_path / out, None)
    with pytest.raises(ValueError, match="ends in"):
        files.label_file(demo, tmp_path / "in.txt", tmp_path / "out.csv", None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give texts, or one of --file, --self-test and --bench"),
        (["a", "--self-test"], "give texts, or one of"),
        (["--bench", "--self-test"], "give texts, or one of"),
        (["--file", "a.csv"], "belong together"),
        (["a", "--output", "a.csv"], "belong together"),
        (["a", "--threads", "0"], "--threads 0 is outside"),
        (["a", "--threads", "x"], "invalid int value"),
        (["--bad"], "unrecognized arguments: --bad; see --help"),
        (["a", "\u200b "], "text 2 is blank"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["how_to_load.py", *words])
    with pytest.raises(SystemExit) as stop:
        main.run(pytest.fail, DEMO)
    found = capsys.readouterr()
    assert (stop.value.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert message in found.err


def test_texts_that_look_like_options_come_after_two_dashes(
    demo: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["how_to_load.py", "a", "--threads", "1", "b", "--", "--self-test", "--", "-5"])
    main.run(lambda threads: demo, DEMO)
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == [
        "a",
        "b",
        "--self-test",
        "--",
        "-5",
    ]


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


def test_the_self_test_reports_what_differs(
    demo: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def same(manifest: dict[str, Any]) -> None:
        for entry in manifest["golden"]:
            entry["ids"] = demo.encode([entry["text"]])[0].tolist()

    def other_id(manifest: dict[str, Any]) -> None:
        manifest["golden"][0]["ids"][0] += 1

    def other_label(manifest: dict[str, Any]) -> None:
        manifest["golden"][1]["label"] = "x"

    def other_score(manifest: dict[str, Any]) -> None:
        manifest["golden"][2]["scores"][0] += 0.002

    monkeypatch.setattr(sys, "argv", ["how_to_load.py", "--self-test"])
    folder = shutil.copytree(DEMO, tmp_path / "package")
    count = len(json.loads((folder / "manifest.json").read_text("utf-8"))["golden"])
    main.run(lambda threads: demo, changed(folder, same))
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["labels"] == f"{count} of {count} golden texts as shipped"
    assert "self-test" in lines
    for change, topic, text in (
        (other_id, "token", f"{count - 1} of {count}"),
        (other_label, "labels", f"{count - 1} of {count}"),
        (other_score, "scores", "2.0e-03"),
    ):
        with pytest.raises(SystemExit) as stop:
            main.run(lambda threads: demo, changed(folder, change))
        found = capsys.readouterr()
        lines = dict(line.split(maxsplit=1) for line in found.out.splitlines())
        assert text in lines[topic]
        assert (stop.value.code, found.err.count("\n")) == (2, 1)


def test_a_damaged_package_fails_its_self_test_and_an_unchanged_one_passes(shipped: Path, tmp_path: Path) -> None:
    done = call(shipped, "--self-test")
    assert (done.returncode, done.stderr) == (0, "")
    assert "onnxruntime" in done.stdout
    folder = shutil.copytree(shipped, tmp_path / "package")
    held = contents(folder)["config.json"]
    (folder / "config.json").write_bytes(held + b" ")
    done = call(folder, "--self-test")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "config.json has changed" in done.stderr


@pytest.mark.parametrize("name", ["onnx"])
def test_a_loader_without_its_command_line_is_one_line(name: Loader, shipped: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shipped, tmp_path / "package")
    (folder / "command_line.py").unlink()
    done = call(folder, "a")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "command_line.py" in done.stderr


def test_a_bench_is_json_with_percentiles_only_from_enough_samples(shipped: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [["text"], *([f"comment number {i}"] for i in range(30)), [" "]])
    done = call(shipped, "--bench", str(source))
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout, parse_constant=pytest.fail)
    measured = record["measurement"]
    assert (measured["threads"], measured["samples"], record["texts"]["distinct"]) == (1, 30, 30)
    assert measured["p50_ms"] > 0
    assert (measured["p90_ms"], measured["p99_ms"], measured["throughput_b32_rows_s"]) == (None, None, None)
    assert measured["throughput_b8_rows_s"] > 0
    assert measured["cold_start_ms"] > 50
    assert record["self_test"]["passed"] is True
    (tmp_path / "device.json").write_text(done.stdout, "utf-8")
    assert read_device(tmp_path / "device.json", [shipped]).measurement.p50_ms == measured["p50_ms"]
    assert set(record["machine"]) == {
        "cpu", "architecture", "flags", "cores", "memory_gib", "os", "python", "load_average",
    }  # fmt: skip

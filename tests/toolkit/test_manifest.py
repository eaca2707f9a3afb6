"""Packages from elsewhere: each fault is one line and exit code 2, never a traceback, a hang or another answer."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.registry import exporter
from tests.exporters.ngram.test_graph import package_of, student
from tests.helpers import Hbt, rehash
from toolkit import golden_scores, package
from toolkit.manifest import read_manifest
from toolkit.utils.console import json_line, printable
from toolkit.utils.errors import InputError

TEXTS = ["the sea is calm", "খাবারটা ভালো", "a 🙂"]
Fault = Callable[[Path], None]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete package of a small n-gram network. Do not change it: copy it."""
    folder = package_of(student(rows=256), "onnx-fp32", tmp_path_factory.mktemp("shipped") / "package")
    target = exporter("onnx-fp32")
    (folder / "README.md").write_text("# The card\n", "utf-8")
    lineage = {"corpus_fingerprint": "0" * 64, "run": "runs/toy"}
    golden = package.golden_scores(target.load(folder), TEXTS)
    package.write_manifest(folder, target, "x86-64", lineage, golden)
    return folder


@pytest.fixture
def copied(shipped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shipped, tmp_path / "package")


def edited(change: Callable[[Any], None]) -> Fault:
    """A fault in the fields of the manifest."""

    def damage(folder: Path) -> None:
        file = folder / "manifest.json"
        manifest = json.loads(file.read_text("utf-8"))
        change(manifest)
        file.write_text(json.dumps(manifest), "utf-8")

    return damage


def field(*path: str | int, to: Any) -> Fault:
    """A fault in one field of the manifest."""

    def change(manifest: Any) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = to

    return edited(change)


def listed(name: str, size: Any = 0) -> Fault:
    """One more file in the manifest."""
    return edited(lambda manifest: manifest["files"].update({name: {"sha256": "0" * 64, "size_bytes": size}}))


def raw(text: str) -> Fault:
    return lambda folder: (folder / "manifest.json").write_text(text, "utf-8") and None


def inserted(text: str) -> Fault:
    """A manifest with `text` as the first golden score."""

    def damage(folder: Path) -> None:
        field("golden", 0, "scores", 0, to="HERE")(folder)
        file = folder / "manifest.json"
        file.write_text(file.read_text("utf-8").replace('"HERE"', text), "utf-8")

    return damage


def replaced(name: str, make: Callable[[Path], Any]) -> Fault:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return damage


def consistent(name: str, change: Callable[[bytes], bytes]) -> Fault:
    """Another content of a file, with its hash in the manifest."""

    def damage(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        rehash(folder)

    return damage


def config(**changed: Any) -> Fault:
    def change(held: bytes) -> bytes:
        return json.dumps(json.loads(held) | changed).encode()

    return consistent("config.json", change)


def sparse(name: str, size: int) -> Fault:
    def make(file: Path) -> None:
        with file.open("wb") as stream:
            stream.truncate(size)

    return replaced(name, make)


def bytecode(folder: Path) -> None:
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "how_to_load.cpython-311.pyc").write_bytes(b"code")


def linked_folder(folder: Path) -> None:
    (folder / "sub").symlink_to("/dev")
    listed("sub/zero", 5)(folder)


def with_socket(file: Path) -> None:
    here = Path.cwd()
    os.chdir(file.parent)  # the path of a socket is short
    socket.socket(socket.AF_UNIX).bind(file.name)
    os.chdir(here)


def graph(*nodes: Any, weights: tuple[Any, ...] = ()) -> Fault:
    """Another network: nodes that make `logits` from `input_ids`."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    made = helper.make_graph(list(nodes), "hostile", [ids], [logits], list(weights))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return consistent("onnx/model.onnx", lambda _: model.SerializeToString())


def constant(value: np.ndarray, name: str) -> Any:
    return numpy_helper.from_array(value, name)


def constant_logits(*values: float) -> Fault:
    row = constant(np.array([values], np.float32), "row")
    return graph(helper.make_node("Identity", ["row"], ["logits"]), weights=(row,))


def endless_loop() -> Fault:
    step = [helper.make_node("Identity", [a], [b]) for a, b in (("go", "go_on"), ("x", "y"))]
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        step,
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("x", TensorProto.FLOAT, [1, 2])],
        [info("go_on", TensorProto.BOOL, []), info("y", TensorProto.FLOAT, [1, 2])],
    )
    weights = (constant(np.array(True), "yes"), constant(np.zeros((1, 2), np.float32), "zero"))
    return graph(helper.make_node("Loop", ["", "yes", "zero"], ["logits"], body=body), weights=weights)


def huge_tensor() -> Fault:
    shape = constant(np.array([1 << 20, 1 << 20], np.int64), "shape")
    return graph(helper.make_node("ConstantOfShape", ["shape"], ["logits"]), weights=(shape,))


def without_padding(held: bytes) -> bytes:
    return json.dumps(json.loads(held) | {"padding": None}).encode()


def swapped(labels: bytes) -> bytes:
    return labels.replace(b"label 0", b"label X").replace(b"label 1", b"label 0").replace(b"label X", b"label 1")


NAN, INF = float("nan"), float("inf")


def linked(name: str, to: str) -> Fault:
    return replaced(name, lambda file: file.symlink_to(to))


def added(name: str) -> Fault:
    return replaced(name, lambda file: file.write_text("x"))


def both(*faults: Fault) -> Fault:
    def damage(folder: Path) -> None:
        for fault in faults:
            fault(folder)

    return damage


def renamed(old: str, new: str) -> Fault:
    return lambda folder: (folder / old).rename(folder / new) and None


def many(folder: Path) -> None:
    for i in range(5000):
        (folder / str(i)).touch()


FILES: list[tuple[str, Fault, str]] = [
    (
        "a link to itself renamed",
        both(renamed("onnx/model.onnx", "onnx/c"), linked("onnx/model.onnx", "c")),
        "is not a regular file",
    ),
    ("a link to a device", linked("onnx/model.onnx", "/dev/zero"), "onnx/model.onnx is not a regular file"),
    ("a link that is not listed", linked("more", "/dev/zero"), "more is not in the manifest"),
    ("a folder behind a link", linked_folder, "sub/zero is not inside a regular folder"),
    ("a FIFO", replaced("config.json", os.mkfifo), "config.json is not a regular file"),
    ("a FIFO that is not listed", replaced("more", os.mkfifo), "more is not in the manifest"),
    ("a FIFO as manifest", replaced("manifest.json", os.mkfifo), "it is not a regular file"),
    ("a device as manifest", linked("manifest.json", "/dev/zero"), "it is not a regular file"),
    ("a folder as manifest", replaced("manifest.json", Path.mkdir), "it is not a regular file"),
    ("a socket", replaced("README.md", with_socket), "README.md is not a regular file"),
    ("a folder instead of a file", replaced("onnx/model.onnx", Path.mkdir), "onnx/model.onnx is not a regular file"),
    ("bytecode", bytecode, "is bytecode"),
    ("a hidden file", added(".hidden"), ".hidden is not in the manifest"),
    ("10 GB", sparse("onnx/model.onnx", 10**10), "10,000,000,000 bytes instead of"),
    ("10 GB, listed", both(sparse("onnx/model.onnx", 10**10), listed("onnx/model.onnx", 10**10)), "it lists more than"),
    ("a manifest of 1 GB", sparse("manifest.json", 10**9), "it has 1,000,000,000 bytes"),
    ("an empty model", sparse("onnx/model.onnx", 0), "0 bytes instead of"),
    ("a name with an escape sequence", added("\x1b[31mred"), "\\x1b[31mred is not in the manifest"),
    ("5,000 files", many, "and more"),
]
PATHS = ["/dev/zero", "../outside", "a/../../b", "a/../b", "", ".", "./model.onnx", "a//b", "C:\\x", "a\\b", "a\x00b",
         "a\nb", "a\x1b[31m", "a\u202eb", "x" * 300, "\ud800"]  # fmt: skip
FIELDS: list[tuple[str, Fault, str]] = [
    *((f"the path {path[:20]!r}", listed(path), "is not a plain path inside") for path in PATHS),
    *((f"{name} = {value!r}", field(name, to=value), name)
      for name in ("schema", "target", "runtime", "checked_on", "tolerance", "this_cpu_only", "files", "lineage",
                   "golden")
      for value in (None, True, 1.5, [1], -1, {"a": 1}, "\x1b[31m")
      if (name, type(value)) not in {("lineage", dict), ("this_cpu_only", bool)}),
    *((f"tolerance {value}", field("tolerance", to=value), "'tolerance' is not above 0 and at most 0.01")
      for value in (0.0, -1e-3, 0.011)),
    ("checked nowhere", field("checked_on", to=[]), "'checked_on' is not a list of names"),
    *((f"without {name}", edited(lambda m, name=name: m.pop(name)), "not a valid manifest (it has no")
      for name in ("target", "runtime", "checked_on", "tolerance", "this_cpu_only", "files", "lineage", "golden")),
    *((f"size {value!r:.20}", field("files", "onnx/model.onnx", "size_bytes", to=value), "is not a number of bytes")
      for value in (None, "1", 1.0, -1, True, [])),
    ("a size of 4,000 digits", field("files", "onnx/model.onnx", "size_bytes", to=10**4000), "it lists more than"),
    *((f"hash {value!r}", field("files", "onnx/model.onnx", "sha256", to=value), "is not a SHA-256")
      for value in (None, 1, "", "0" * 63, "Z" * 64, "0" * 64 + "\n")),
    *((f"entry {value!r}", field("files", "onnx/model.onnx", to=value), "is not a JSON object")
      for value in (None, 1, "x", [])),
    ("another size", field("files", "README.md", "size_bytes", to=1), "instead of 1"),
    ("2,000 files", edited(lambda m: m["files"].update({f"{i}": {} for i in range(2000)})), "more than 1,000"),
    ("no files", field("files", to={}), "is not in the manifest"),
    (
        "a model that is not listed",
        edited(lambda m: m["files"].pop("onnx/model.onnx")),
        "onnx/model.onnx is not in the manifest",
    ),
    ("an unknown target", field("target", to="onnx-int2"), "unknown target 'onnx-int2'"),
    ("a target with an escape sequence", field("target", to="\x1b[31m"), "unknown target"),
    ("a wrong target", field("target", to="torch-int8"), "model.safetensors is not in the manifest"),
    ("a wrong runtime", field("runtime", "name", to="torch"), "the runtime of onnx-fp32 is onnxruntime"),
    ("a wrong version", field("runtime", "version", to="0.1"), "does not allow"),
    ("a runtime without version", field("runtime", to={"name": "onnxruntime"}), "lacks name or version"),
    ("a lineage of other types", field("lineage", "run", to=[1]), "'run' of 'lineage' is not a str"),
    ("no golden texts", field("golden", to=[]), "it has no golden texts"),
    *((f"golden {value!r}", field("golden", 0, to=value), "golden text 0") for value in (None, 1, "x", [], {})),
    *((f"golden {name}", field("golden", 0, name, to=value), "golden text 0")
      for name in ("text", "label", "scores")
      for value in (None, 1, {}, ["x", "y"], [True, False], [0.5], [0.9, 0.9], [-0.5, 1.5], [10**400, 0])),
    *((f"a score {text:.9}", inserted(text), "not a valid manifest")
      for text in ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 100_000)),
    ("three scores", field("golden", 0, "scores", to=[0.2, 0.3, 0.5]), "3 scores, and the model has 2 labels"),
    ("a label of no text", field("golden", 0, "label", to="\x1b[31mx"), "'\\x1b[31mx' of golden text 0 is not a label"),
    ("deep nesting", raw("[" * 1_000_000), "nested too deeply"),
    ("a key twice", raw('{"schema": 1, "schema": 1}'), "the same key twice"),
    ("a byte-order mark", raw("\ufeff{}"), "not a valid manifest"),
    *((f"only {text}", raw(text), "not a valid manifest") for text in ("", "null", "1", '"x"', "[]", "{}", "{", "NaN")),
    ("a later schema", raw('{"schema": 2}'), "schema 2, but this hbt supports 1"),
]  # fmt: skip
CONTENT: list[tuple[str, Fault, str]] = [
    ("swapped labels", consistent("config.json", swapped), "labels flip"),
    ("another threshold", config(threshold=1e-9), "labels flip"),
    ("labels with escape sequences", config(id2label={"0": "\x1b[31m", "1": "b"}), "is not a label of the model"),
    ("labels that are no text", config(id2label={"0": 1, "1": None}), "id2label"),
    ("a gap in the labels", config(id2label={"0": "label 0", "2": "label 1"}), "does not load"),
    ("three labels", config(id2label={"0": "a", "1": "b", "2": "c"}), "shape (1, 2) for 3 labels"),
    ("no labels", config(id2label={}), "id2label"),
    ("labels as a list", config(id2label=["a", "b"]), "does not load"),
    ("a threshold that is no number", config(threshold="x"), "threshold must be"),
    ("offsets of another number", config(offsets=[0.5]), "offsets must be"),
    ("offsets that are no numbers", config(offsets=["a", "b"]), "offsets must be"),
    ("infinite offsets", config(offsets=[0.0, INF]), "offsets must be"),
    ("one offset", config(offsets=1.5), "does not load"),
    ("an infinite threshold", config(threshold=INF), "threshold must be"),
    ("config.json as a list", consistent("config.json", lambda _: b"[]"), "does not load"),
    ("a nested config.json", consistent("config.json", lambda _: b"[" * 1_000_000), "does not load"),
    ("an empty config.json", consistent("config.json", lambda _: b""), "does not load"),
    ("a tokenizer that is none", consistent("tokenizer.json", lambda _: b"{}"), "does not load"),
    ("a nested tokenizer", consistent("tokenizer.json", lambda _: b'{"a":' * 500_000), "does not load"),
    ("half a tokenizer", consistent("tokenizer.json", lambda held: held[: len(held) // 2]), "does not load"),
    ("a tokenizer without padding", consistent("tokenizer.json", without_padding), "does not load"),
    ("half a model", consistent("onnx/model.onnx", lambda held: held[: len(held) // 2]), "does not load"),
    ("an empty model", consistent("onnx/model.onnx", lambda _: b""), "does not load"),
    ("a model that is text", consistent("onnx/model.onnx", lambda _: b"\x1b[31m" * 99), "does not load"),
    ("NaN scores", constant_logits(NAN, 1), "scores that are not finite"),
    ("an infinite score", constant_logits(0, INF), "scores that are not finite"),
    ("one score", constant_logits(0), "shape (1, 1) for 2 labels"),
    ("other scores", constant_logits(0, 1), "golden scores differ"),
    ("an endless loop", endless_loop(), "within 6 seconds"),
    ("a tensor of 4 TB", huge_tensor(), "does not load"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "message"), [pytest.param(*rest, id=name) for name, *rest in [*FILES, *FIELDS]])
def test_a_fault_in_files_or_fields_is_one_line(copied: Path, hbt: Hbt, capfd: Any, fault: Fault, message: str) -> None:
    fault(copied)
    assert hbt("verify", str(copied)) == 2
    told = capfd.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert told[:-1] == printable(told[:-1])


@pytest.mark.parametrize(("fault", "message"), [pytest.param(*rest, id=name) for name, *rest in CONTENT])
def test_a_fault_with_a_consistent_hash_is_one_line(
    copied: Path, hbt: Hbt, capfd: Any, monkeypatch: pytest.MonkeyPatch, fault: Fault, message: str
) -> None:
    fault(copied)
    if message == "within 6 seconds":
        monkeypatch.setattr(golden_scores.score_texts, "__defaults__", (6,))
    assert hbt("verify", str(copied)) == 2
    told = capfd.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert told[:-1] == printable(told[:-1])


BROKEN = [each for each in CONTENT if each[2] == "does not load" and "4 TB" not in each[0]]


@pytest.mark.parametrize(("fault", "message"), [pytest.param(*rest, id=name) for name, *rest in BROKEN])
def test_loading_a_broken_file_is_one_line(copied: Path, hbt: Hbt, capfd: Any, fault: Fault, message: str) -> None:
    fault(copied)
    assert hbt("predict", str(copied), "text") == 2
    told = capfd.readouterr().err
    assert message in told
    assert told.count(message) == 1
    assert told.count("\n") == 1


def test_a_missing_folder_and_a_file_are_no_packages(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "gone", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a package"):
            read_manifest(path)


def test_bytecode_does_not_keep_a_package_from_loading(copied: Path) -> None:
    bytecode(copied)
    assert package.load(copied).predict(TEXTS)
    assert "remove __pycache__" in package.verify(copied).problems[0]


def test_a_process_that_crashes_is_one_line(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_scores, "_CODE", "import os; os.abort()")
    assert package.verify(copied).problems == ["stops its runtime (SIGABRT) when it is loaded"]
    monkeypatch.setattr(golden_scores, "_CODE", "raise SystemExit(3)")
    assert package.verify(copied).problems == ["stops its runtime (exit code 3) when it is loaded"]


def test_verify_runs_no_code_of_the_current_folder(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = copied.parent / "hostile"
    hostile.mkdir()
    for name in ("json.py", "numpy.py", "toolkit.py", "tokenizers.py"):
        (hostile / name).write_text("raise SystemExit('run')\n")
    monkeypatch.chdir(hostile)
    assert package.verify(copied).problems == []


def test_verify_runs_its_own_layers_whatever_comes_first_on_the_path(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m hbt` in a folder with another `toolkit` puts this folder first."""
    (copied.parent / "toolkit").mkdir()
    (copied.parent / "toolkit" / "__init__.py").write_text("raise SystemExit('run')\n")
    monkeypatch.syspath_prepend(copied.parent)
    assert package.verify(copied).problems == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ভালো, 🙂", "plain, ভালো, 🙂"),
        ("ক্‍ষ\u200c", "ক্‍ষ\u200c"),
        ("\x1b[31m\n\x9b\x7f", "\\x1b[31m\\x0a\\x9b\\x7f"),
        ("\u202e\ud800\u2028", "\\u202e\\ud800\\u2028"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_control_characters_are_never_printed_raw(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert json.loads(json_line({"a": text})) == {"a": text}
    assert json_line(text).isprintable() or "\u200c" in text

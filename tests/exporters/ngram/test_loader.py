"""The loader of an n-gram package with an ONNX file: Python, numpy and C give the answers of the graph."""

import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporters.loaders import c, ngram, ngram_onnx
from exporters.loaders.model_bin import arrays, library
from exporters.ngram.tables import write_model
from exporters.registry import exporter
from tests.exporters.ngram.test_graph import TEXTS, WORD_ROWS, network_of, package_of, student
from tests.helpers import ODD_TEXTS, rehash
from toolkit import package
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.ngram import character_tokenizer
from toolkit.utils.errors import InputError

needs_c = pytest.mark.skipif(library.missing_compiler() is not None, reason="no C compiler")
ALL = [*TEXTS, *ODD_TEXTS, "", " ", "\u0301\u0323", "x" * 3000, "a\u0301 \u200b ক্যামেরা", "half \ud800 of a pair"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete package. Do not change it: copy it."""
    folder = package_of(student(), "onnx-int8", tmp_path_factory.mktemp("shipped") / "package")
    target = exporter("onnx-int8")
    package.write_manifest(folder, target, "any", {}, package.golden_scores(target.load(folder), ["sea", "sun"]))
    return folder


@pytest.mark.parametrize("labels", [2, 3, 7])
@pytest.mark.parametrize("way", ["Python", "numpy", pytest.param("C", marks=needs_c)])
@WORD_ROWS
def test_every_way_has_the_logits_and_labels_of_the_graph(
    tmp_path: Path, labels: int, way: str, word_rows: int
) -> None:
    rule = DecisionRule(0.4) if labels == 2 else DecisionRule(None, tuple(np.linspace(-1, 1, labels)))
    made = replace(
        student(labels, rows=1009, word_rows=word_rows), tokenizer=character_tokenizer([*TEXTS, "ভালো é"])
    ).with_rule(rule)
    folder = package_of(made, "onnx-int8", tmp_path / "package")
    graph = ngram_onnx.load(folder, verify=False)
    model = ngram.load(folder, verify=False, compile=way == "C")
    batch_size = 1 if way == "Python" else 7
    logits = model.predict_logits(ALL, batch_size)
    assert (logits.dtype, logits.shape) == (np.float32, (len(ALL), labels))
    np.testing.assert_allclose(logits, graph.predict_logits(ALL), rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(ALL, batch_size), graph.predict_proba(ALL), rtol=0, atol=1e-6)
    assert [label for label, _ in model.predict(ALL, batch_size)] == [label for label, _ in graph.predict(ALL)]
    assert [list(ids) for ids in model.encode(ALL[:-1])] == [ids.tolist() for ids in graph.encode(ALL[:-1])]
    assert model.predict_proba([], batch_size).shape == (0, labels)


def test_batches_of_any_size_have_the_same_scores(shipped: Path) -> None:
    model = ngram.load(shipped)
    for size in (2, 7, 1000):
        np.testing.assert_array_equal(model.predict_logits(ALL, size), model.predict_logits(ALL))


def test_the_bytes_of_model_bin_are_those_of_the_c_target(shipped: Path, tmp_path: Path) -> None:
    made = student()
    write_model(network_of(made), made.tokenizer, made.labels, DecisionRule(0.4), tmp_path / "model.bin")
    assert arrays.model_bin(shipped) == (tmp_path / "model.bin").read_bytes()


def test_single_texts_need_neither_numpy_nor_what_only_c_needs(shipped: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from how_to_load import load; "
        "load(compile=False).predict(['sea', 'sun']); print(*sys.modules)"
    )
    command = [sys.executable, "-B", "-I", "-S", "-c", code, str(shipped)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {*done.stdout.split()} & {"numpy", "tokenizers", "onnxruntime", "ctypes", "subprocess"}
    command = [sys.executable, "-B", "-I", "-S", str(shipped / "how_to_load.py"), "sea"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("label ")


def test_hbt_uses_this_loader_and_the_package_states_what_it_needs(shipped: Path) -> None:
    assert isinstance(package.load(shipped), arrays.ArrayModel)
    assert package.verify(shipped).problems == []
    assert [line.split(">")[0] for line in (shipped / "requirements.txt").read_text().splitlines()[1:]] == ["numpy"]
    assert package.read_manifest(shipped)["runtime"]["name"] == "numpy"


@needs_c
@pytest.mark.parametrize("target", ["onnx-int8", "c"])
def test_code_that_the_manifest_does_not_list_is_not_compiled(tmp_path: Path, target: str) -> None:
    folder = package_of(student(), target, tmp_path / "package")
    load = {"onnx-int8": ngram.load, "c": c.load}[target]
    package.write_manifest(folder, exporter(target), "any", {}, [])
    assert load(folder, compile=True).predict(["sea"]) == load(folder).predict(["sea"])
    source = folder / "model.c"
    held = source.read_bytes()
    source.write_bytes(held + b"\n")
    with pytest.raises(ValueError, match=r"model\.c has changed"):
        load(folder, compile=True)
    source.write_bytes(b"not C")
    rehash(folder)
    with pytest.raises(ValueError, match=r"does not compile model\.c"):
        load(folder, compile=True)
    source.unlink()
    rehash(folder)
    with pytest.raises(ValueError, match=r"model\.c is not in manifest\.json"):
        load(folder, compile=True)


def test_no_compiler_is_one_line_only_if_it_is_asked_for(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ngram.load(shipped).predict(["sea"])
    with pytest.raises(ValueError, match="no C compiler"):
        ngram.load(shipped, compile=True)


@needs_c
def test_c_is_compiled_once_and_then_needs_no_compiler(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert ngram.load(shipped).compiled
    (made,) = (tmp_path / "cache" / "hbt" / "model-c").iterdir()
    assert made.parent.stat().st_mode & 0o777 == 0o700
    before = made.stat()
    monkeypatch.setenv("PATH", str(tmp_path))
    again = ngram.load(shipped)
    assert again.compiled
    assert made.stat() == before
    np.testing.assert_array_equal(again.predict_logits(ALL), ngram.load(shipped, compile=False).predict_logits(ALL))


@needs_c
@pytest.mark.parametrize("broken", ["others can write", "a damaged library", "no folder"])
def test_a_cache_that_cannot_be_trusted_is_not_used(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "hbt" / "model-c"
    if broken == "others can write":
        folder.mkdir(parents=True)
        folder.chmod(0o777)
    elif broken == "a damaged library":
        folder.mkdir(parents=True)
        library.cached(shipped / "model.c").write_bytes(b"no library")
    else:
        (tmp_path / "cache").write_bytes(b"")
    assert ngram.load(shipped).compiled  # in a temporary folder
    assert broken != "others can write" or not [*folder.iterdir()]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not ngram.load(shipped).compiled


@needs_c
def test_hbt_compiles_only_its_own_code(shipped: Path, tmp_path: Path) -> None:
    assert exporter("onnx-int8").load(shipped).compiled  # type: ignore[attr-defined]
    folder = shutil.copytree(shipped, tmp_path / "package")
    (folder / "model.c").write_text((folder / "model.c").read_text("utf-8") + "/* a stranger's */", "utf-8")
    rehash(folder)
    assert not package.load(folder).compiled  # type: ignore[attr-defined]
    (folder / "model.c").unlink()
    assert not exporter("onnx-int8").load(folder).compiled  # type: ignore[attr-defined]


def test_a_table_file_that_the_manifest_does_not_list_is_refused(shipped: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shipped, tmp_path / "package")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    del manifest["files"]["ngram.bin"]
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match=r"ngram\.bin is not in the manifest"):
        package.load(folder)


@pytest.mark.parametrize(
    "broken",
    [
        lambda data: b"",
        lambda data: data[:40],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: struct.pack("<Q", 2**63) + data[8:],
        lambda data: struct.pack("<Q", 10**6) + data[8:],
        lambda data: data[:16] + struct.pack("<I", 2**32 - 1) + data[20:],
        lambda data: data[:20] + struct.pack("<I", 2**32 - 1) + data[24:],
        lambda data: data[:16] + struct.pack("<I", 0) + data[20:],
    ],
)
def test_a_damaged_file_is_one_line(shipped: Path, tmp_path: Path, broken: object) -> None:
    assert callable(broken)
    folder = shutil.copytree(shipped, tmp_path / "package")
    (folder / "ngram.bin").write_bytes(broken((folder / "ngram.bin").read_bytes()))
    rehash(folder)
    (problem,) = package.verify(folder).problems
    assert "\n" not in problem
    with pytest.raises(ValueError, match="does not load"):
        ngram.load(folder)


def test_scores_that_are_not_finite_are_an_error(shipped: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shipped, tmp_path / "package")
    data = bytearray((folder / "ngram.bin").read_bytes())
    start = 8 + 8 + 60
    data[start : start + 16] = struct.pack("<2d", *[float("nan")] * 2)
    (folder / "ngram.bin").write_bytes(data)
    for size in (1, 2):
        with pytest.raises(ValueError, match="not finite"):
            ngram.load(folder, verify=False).predict(["sea", "sun"], size)


def test_a_student_that_no_program_takes_needs_onnx_runtime(tmp_path: Path) -> None:
    """One with more labels than model.bin holds, or a tokenizer that truncates."""
    made = student()
    made.tokenizer.enable_truncation(max_length=1024)
    folder = package_of(made, "onnx-int8", tmp_path / "package")
    assert not (folder / "ngram.bin").exists() and not (folder / "model.c").exists()
    assert "onnxruntime" in (folder / "requirements.txt").read_text()
    assert exporter("onnx-int8").load(folder).predict(["sea"])
    package.write_manifest(
        folder, exporter("onnx-int8"), "any", {}, package.golden_scores(exporter("onnx-int8").load(folder), ["sea"])
    )
    assert package.verify(folder).problems == []

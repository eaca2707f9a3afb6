"""how_to_load.py: only the code of one runtime, and the same scores as hbt."""

import copy
import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from exporters.loaders import onnx
from exporters.loaders.base.routing import TRANSFORMER
from exporters.loaders.command.model import printable
from exporters.loaders.common import Model
from exporters.loaders.compose import (
    CASCADE,
    NGRAM,
    Loader,
    command_line_source,
    load_package,
    loader_source,
)
from exporters.onnx_fp32 import onnx_loader
from exporters.registry import exporter
from tests.exporters.ngram.test_graph import evidence, package_of, student
from tests.helpers import ODD_TEXTS, SLOW, evidence_of, rehash, written
from toolkit import golden_scores, package
from toolkit.data.corpus import Corpus
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import MODEL_TYPE
from toolkit.utils import console

ROOT = Path(__file__).parents[2]
LOADERS: tuple[Loader, ...] = get_args(Loader)
LOADED = [pytest.param(each, marks=SLOW) if each in ("torch", "openvino") else each for each in LOADERS]
"""Those of large runtimes are tried by `make test-slow`."""
OF_TORCH = ("torch", "safetensors", "transformers import", "Int8Linear")
OF_SUBWORDS, OF_CHARACTERS = ("encode_batch", "attention_mask"), ("utf-32", "normalize_str")
FOREIGN: dict[Loader, tuple[str, ...]] = {
    "onnx": (*OF_TORCH, *OF_CHARACTERS, "openvino"),
    "ngram": (*OF_TORCH, *OF_SUBWORDS, *OF_CHARACTERS, "openvino", "onnxruntime", "transformer"),
    "ngram_onnx": (*OF_TORCH, *OF_SUBWORDS, "openvino", "transformer"),
    "program": (*OF_TORCH, *OF_SUBWORDS, *OF_CHARACTERS, "openvino", "onnx", "numpy", "gcc"),
    "c": (*OF_TORCH, *OF_SUBWORDS, *OF_CHARACTERS, "openvino", "onnx", "numpy"),
    "cascade": (*OF_TORCH, *OF_SUBWORDS, *OF_CHARACTERS, "openvino", "onnxruntime"),
    "cascade_onnx": (*OF_TORCH, *OF_SUBWORDS, "openvino"),
    "torch": (*OF_CHARACTERS, "onnxruntime", "openvino"),
    "openvino": (*OF_TORCH, *OF_CHARACTERS, "onnxruntime"),
}
NEEDED: dict[Loader, set[str]] = {
    "onnx": {"numpy", "tokenizers", "onnxruntime"},
    "ngram": {"numpy"},
    "ngram_onnx": {"numpy", "tokenizers", "onnxruntime"},
    "cascade": {"numpy", "tokenizers", "onnxruntime"},
    "cascade_onnx": {"numpy", "tokenizers", "onnxruntime"},
    "torch": {"numpy", "tokenizers", "torch", "transformers", "safetensors"},
    "openvino": {"numpy", "tokenizers", "openvino"},
    "program": set(),
    "c": set(),
}
RUNTIMES = {"torch", "transformers", "safetensors", "onnxruntime", "openvino", "onnx", "toolkit", "exporters", "hbt"}
RUNTIMES |= {"numpy", "tokenizers"}
TARGETS = {
    "onnx": "onnx-fp32", "torch": "torch-int8", "openvino": "openvino-int8", "ngram_onnx": "onnx-fp32",
    "program": "python", "c": "c",
}  # fmt: skip
"""Targets of packages with each loader; onnx-int8 for the others."""


@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_has_no_code_of_other_runtimes_and_networks(loader: Loader) -> None:
    text = loader_source(loader)
    assert [word for word in FOREIGN[loader] if word in text] == []
    assert "exporters" not in text
    assert text.count("class Model:") == text.count("def load(") == text.count('__name__ == "__main__"') == 1
    assert len(text.splitlines()) < {
        "torch": 390,
        "cascade": 775,
        "cascade_onnx": 390,
        "ngram": 680,
        "c": 550,
        "program": 405,
    }.get(loader, 295)


def cascade_of(
    learned: Classifier, toy: Corpus, folder: Path, target: str = "onnx-fp32", loader: Loader = "cascade"
) -> Path:
    """A cascade that defers about half of the odd texts."""
    first = "onnx-int8" if loader == "cascade" else "onnx-fp32"
    written(first, ngram := student(), evidence(ngram, ["sea"]), folder)
    written(target, learned, evidence_of(toy, learned.rule), folder / TRANSFORMER, search="off")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    texts = [text for text in ODD_TEXTS if "\x00" not in text]
    apart = np.abs(np.diff(load_package("ngram_onnx", folder).predict_logits(texts), axis=1))
    routing = {"margin": float(np.median(apart)), "offsets": [0, 0], "ngram_weight": 0.4, "transformer_weight": 0.8}
    names = {name: config[name] for name in ("id2label", "label2id")}
    second = json.loads((folder / TRANSFORMER / "config.json").read_text("utf-8"))
    (folder / TRANSFORMER / "config.json").write_text(json.dumps(second | names), "utf-8")
    (folder / "config.json").write_text(json.dumps(config | {"model_type": CASCADE, "cascade": routing}), "utf-8")
    (folder / "how_to_load.py").write_text(loader_source(loader), "utf-8")
    shutil.copyfile(folder / TRANSFORMER / "requirements.txt", folder / "requirements.txt")
    return folder


def made(loader: Loader, learned: Classifier, toy: Corpus, folder: Path) -> Path:
    """A package folder without model card and manifest, for one of the loaders."""
    target = TARGETS.get(loader, "onnx-int8")
    if loader in ("ngram", "ngram_onnx", "program", "c"):
        if exporter(target).available() is not None:
            pytest.skip(f"no target {target} here")
        return package_of(student(), target, folder)
    if loader in ("cascade", "cascade_onnx"):
        return cascade_of(learned, toy, folder, loader=loader)
    if loader == "openvino":
        pytest.importorskip("nncf")
    written(target, learned, evidence_of(toy, learned.rule), folder, search="off")
    return folder


@pytest.mark.parametrize("loader", LOADED)
def test_a_packaged_loader_needs_only_its_runtime_and_scores_like_hbt(
    loader: Loader, learned: Classifier, toy: Corpus, tmp_path: Path
) -> None:
    folder = made(loader, learned, toy, tmp_path / "package")
    assert (folder / "how_to_load.py").read_text("utf-8") == loader_source(loader)
    script = (
        "import sys, json\n"
        f"for name in {sorted(RUNTIMES - NEEDED[loader])}: sys.modules[name] = None\n"
        "from how_to_load import load\n"
        "model, texts = load(threads=1, verify=False), json.loads(sys.argv[1])\n"
        "lists = lambda rows: [[float(value) for value in row] for row in rows]\n"
        "print(json.dumps([model.labels, model.threshold, lists(model.predict_logits(texts)), "
        "lists(model.predict_proba(texts, batch_size=4)), model.predict(texts)]))"
    )
    if loader == "torch":  # transformers checks whether onnx is installed
        script = script.replace("'onnx', ", "")
    environment = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-P", "-c", script, json.dumps([text for text in ODD_TEXTS if "\x00" not in text])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("home/**/*icrosoft*")), "onnxruntime keeps an id of the device for its telemetry"
    labels, threshold, logits, batched, answers = json.loads(done.stdout)

    own = exporter(TARGETS.get(loader, "onnx-int8")).load(folder, threads=1)
    texts = [text for text in ODD_TEXTS if "\x00" not in text]
    assert (tuple(labels), threshold) == (own.labels, own.threshold)
    np.testing.assert_array_equal(np.array(logits, np.float32), own.predict_logits(texts))
    np.testing.assert_array_equal(np.array(batched, np.float32), own.predict_proba(texts, batch_size=4))
    assert [label for label, _ in answers] == [label for label, _ in own.predict(texts)]


def test_the_loader_of_an_onnx_package_follows_its_network(tmp_path: Path) -> None:
    assert NGRAM == MODEL_TYPE
    assert onnx_loader(tmp_path / "missing") == "onnx"
    ngram = student()
    kinds = {CASCADE: "cascade_onnx", "bert": "onnx"}
    for target, loader in (("onnx-int8", "ngram"), ("onnx-fp32", "ngram_onnx")):
        folder = tmp_path / target
        written(target, ngram, evidence(ngram, ["sea"]), folder)
        assert onnx_loader(folder) == loader
        assert (folder / "how_to_load.py").read_text("utf-8") == loader_source(loader)
    for kind, loader in kinds.items():
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}), "utf-8")
        assert onnx_loader(folder) == loader


def test_hbt_never_runs_the_loader_in_the_folder(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "models" / "demo-onnx-int8", tmp_path / "package")
    expected = package.load(folder).predict_logits(ODD_TEXTS)
    (folder / "how_to_load.py").write_text("raise SystemExit('run')\n", "utf-8")
    rehash(folder)
    assert package.load(folder).predict_logits(ODD_TEXTS).tobytes() == expected.tobytes()


def test_a_package_of_an_earlier_hbt_loads() -> None:
    folder = ROOT / "models" / "demo-onnx-int8"
    assert package.changed_files(folder) == []
    golden = package.read_manifest(folder)["golden"]
    found = package.load(folder).predict([entry["text"] for entry in golden])
    assert [label for label, _ in found] == [entry["label"] for entry in golden]


@pytest.fixture(scope="module")
def demo() -> Model:
    return onnx.load(ROOT / "models" / "demo-onnx-int8")


@pytest.mark.parametrize("loader", LOADED)
def test_lone_surrogates_are_replaced_and_do_not_spoil_a_batch(
    loader: Loader, learned: Classifier, toy: Corpus, tmp_path: Path
) -> None:
    model = load_package(loader, made(loader, learned, toy, tmp_path / "package"))
    broken = ["\ud800", "sea \udfff", "\ud83d\ude00 sun", "sea"]
    whole = ["\ufffd", "sea \ufffd", "\U0001f600 sun", "sea"]
    for texts in (broken, broken[:1]):
        np.testing.assert_array_equal(model.predict_logits(texts), model.predict_logits(whole[: len(texts)]))
    np.testing.assert_array_equal(model.predict_logits(broken, batch_size=3), model.predict_logits(whole, batch_size=3))


@pytest.mark.parametrize("call", ["predict", "predict_proba", "predict_logits"])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("text", "not one text"),
        (b"text", "not one text"),
        ([1], r"texts\[0\] is not"),
        (["a", None], r"texts\[1\]"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(demo: Model, call: str, texts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(demo, call)(texts)


@pytest.mark.parametrize("batch_size", [0, -1])
@pytest.mark.parametrize("texts", [[], ["a"], ["a", "b", "c"]])
def test_a_batch_size_below_one_is_refused(demo: Model, texts: list[str], batch_size: int) -> None:
    for call in (demo.predict_proba, demo.predict_logits):
        with pytest.raises(ValueError, match="batch_size must be 1 or more"):
            call(texts, batch_size=batch_size)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("texts", [["a"], ["a", "b", "c"]])
def test_scores_that_are_not_finite_are_an_error(demo: Model, texts: list[str], batch_size: int, value: float) -> None:
    model = copy.copy(demo)
    model.network = lambda ids, mask: np.full((len(ids), 2), value, np.float32)
    with pytest.raises(ValueError, match="not finite"):
        model.predict_proba(texts, batch_size)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2), (2,), ()])
def test_scores_of_another_shape_are_an_error(demo: Model, shape: tuple[int, ...]) -> None:
    model = copy.copy(demo)
    model.network = lambda ids, mask: np.zeros(shape, np.float32)
    for texts in (["a"], ["a", "b"]):
        with pytest.raises(ValueError, match="shape"):
            model.predict_logits(texts)


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    """The package in models/ with the loader of today."""
    folder = shutil.copytree(ROOT / "models" / "demo-onnx-int8", tmp_path / "package")
    (folder / "how_to_load.py").write_text(loader_source("onnx"), "utf-8")
    (folder / "command_line.py").write_text(command_line_source(), "utf-8")
    rehash(folder)
    return folder


def program(folder: Path, *texts: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", str(folder / "how_to_load.py"), *texts]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, encoding="utf-8", timeout=60)


def write_manifest_text(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "manifest.json").write_text(text, "utf-8")


def list_file(name: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        manifest["files"][name] = {"sha256": "0" * 64, "size_bytes": 0}
        (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")

    return change


def replace(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (replace("onnx/model.onnx", lambda file: None), "model.onnx is missing"),
        (replace("onnx/model.onnx", lambda file: file.write_bytes(b"x")), "model.onnx has changed"),
        (replace("README.md", lambda file: file.write_bytes(b"x")), "README.md has changed"),
        (replace("onnx/model.onnx", lambda file: file.symlink_to("/dev/zero")), "is not a regular file inside"),
        (replace("onnx/model.onnx", os.mkfifo), "is not a regular file inside"),
        (replace("onnx/model.onnx", Path.mkdir), "is not a regular file inside"),
        (replace("manifest.json", os.mkfifo), "manifest.json is missing"),
        (replace("manifest.json", lambda file: file.symlink_to("/dev/zero")), "manifest.json is missing"),
        (replace("manifest.json", lambda file: None), "manifest.json is missing"),
        *((write_manifest_text(text), "manifest.json is malformed") for text in ("", "[]", "{", "null", '{"files": 1}',
          '{"files": {"a": 1}}', '{"files": {"a": {}}}', "[" * 1_000_000, "9" * 5000)),
        (write_manifest_text('{"files": {}}'), "config.json is not in manifest.json"),
        *((list_file(name), "regular file inside")
          for name in ("/dev/zero", "../package/config.json", "x/../config.json", "")),
        (list_file("a\x00b"), "does not load"),
        (list_file("\x1b[31m"), "\\x1b[31m is missing"),
    ],
)  # fmt: skip
def test_the_loader_refuses_a_fault_in_one_line(packaged: Path, fault: Callable[[Path], Any], message: str) -> None:
    fault(packaged)
    with pytest.raises(ValueError, match="does not load") as caught:
        onnx.load(packaged)
    assert message in printable(str(caught.value))
    assert "\n" not in str(caught.value)


def test_errors_of_the_program_are_one_line(packaged: Path) -> None:
    assert program(packaged, "text").returncode == 0
    config = json.loads((packaged / "config.json").read_text("utf-8"))
    config["id2label"] = {"0": "\x1b[31mred", "1": "b\u202ec\n"}
    (packaged / "config.json").write_text(json.dumps(config), "utf-8")
    done = program(packaged, "text")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "config.json has changed" in done.stderr
    rehash(packaged)
    done = program(packaged, "text \x1b[31m ভালো\n\x07")
    assert done.returncode == 0, done.stderr
    label, _, text = done.stdout.split("\t")
    assert label in ("\\x1b[31mred", "b\\u202ec\\x0a")
    assert text == "text \\x1b[31m ভালো\\x0a\\x07\n"
    (packaged / "tokenizer.json").write_text("{}")
    rehash(packaged)
    done = program(packaged, "text")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("module", ["numpy", "tokenizers", "onnxruntime"])
def test_a_module_that_is_not_installed_is_one_line(packaged: Path, tmp_path: Path, module: str) -> None:
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / f"{module}.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{module}'\", name='{module}')\n"
    )
    (packaged / "how_to_load.py").write_text(loader_source("onnx"), "utf-8")
    command = [sys.executable, "-B", str(packaged / "how_to_load.py"), "text"]
    environment = os.environ | {"PYTHONPATH": str(missing)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"No module named '{module}'; pip install -r {packaged / 'requirements.txt'}\n"


def test_without_verification_a_changed_card_does_not_matter(packaged: Path) -> None:
    (packaged / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"README\.md"):
        onnx.load(packaged)
    assert onnx.load(packaged, verify=False).predict(["a"])


@pytest.mark.parametrize("start", range(0, 0x30000, 0x8000))
def test_the_loader_and_hbt_escape_the_same_characters(start: int) -> None:
    text = "".join(map(chr, range(start, start + 0x8000)))
    assert printable(text) == console.printable(text)


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
def test_a_package_of_every_runtime_verifies_within_the_limits(
    loader: Loader, learned: Classifier, toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(loader, learned, toy, tmp_path / "package")
    name = TARGETS.get(loader, "onnx-int8")
    golden = package.golden_scores(exporter(name).load(folder), ["sea", "sun"])
    package.write_manifest(folder, exporter(name), "x86-64", {}, golden)
    assert package.verify(folder).problems == []
    if loader == "torch":
        network = json.loads((folder / "network.json").read_text("utf-8"))
        network["config"]["num_hidden_layers"] = 20_000
        (folder / "network.json").write_text(json.dumps(network), "utf-8")
        rehash(folder)
        monkeypatch.setattr(golden_scores.score_texts, "__defaults__", (15,))
        (problem,) = package.verify(folder).problems
        assert "within 15 seconds" in problem or "does not load" in problem


def random_strings(count: int) -> list[str]:
    """Strings of code points from all planes: letters, marks, controls, joiners, unassigned ones, lone surrogates."""
    dice = random.Random(0)
    ranges = [(0, 0x7F), (0x80, 0x2FF), (0x300, 0x36F), (0x980, 0x9FF), (0x200B, 0x206F), (0xD800, 0xDFFF),
              (0xE000, 0xFFFF), (0x1F300, 0x1FAFF), (0xE0000, 0xE01FF), (0, 0x10FFFF)]  # fmt: skip
    found = ["", "\x00", "\ud800", "a" * 20_000, "\u0301" * 3_000, "\ufdfa" * 500]
    while len(found) < count:
        spans = dice.choices(ranges, k=dice.randint(1, 3))
        found.append("".join(chr(dice.randint(*dice.choice(spans))) for _ in range(int(dice.expovariate(1 / 25)))))
    return found


@pytest.mark.parametrize("count", [200, pytest.param(5_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("loader", LOADED)
def test_any_string_gets_finite_scores_that_sum_to_one(
    loader: Loader, learned: Classifier, toy: Corpus, tmp_path: Path, count: int
) -> None:
    model = load_package(loader, made(loader, learned, toy, tmp_path / "package"), 1)
    texts = random_strings(count)
    scores = np.array(model.predict_proba(texts, 32))
    assert scores.shape == (count, len(model.labels))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert {label for label, _ in model.predict(texts[:50])} <= set(model.labels)


def test_the_committed_package_has_the_loader_and_command_line_of_this_version() -> None:
    folder = Path(__file__).parents[2] / "models" / "demo-onnx-int8"
    assert (folder / "how_to_load.py").read_text("utf-8") == exporter("onnx-int8").loader(folder)
    assert (folder / "command_line.py").read_text("utf-8") == command_line_source()

"""The file that ships as how_to_load.py: one runtime each, and the same scores as through hbt."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from exporters.loaders.compose import NGRAM, Loader, loader_source
from exporters.onnx_fp32 import onnx_loader
from exporters.registry import exporter
from tests.exporters.test_ngram_graph import evidence, package_of, student
from tests.helpers import ODD_TEXTS, evidence_of, rehash, written
from toolkit import package
from toolkit.data.corpus import Corpus
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import MODEL_TYPE

ROOT = Path(__file__).parents[2]
LOADERS: tuple[Loader, ...] = get_args(Loader)
OF_TORCH = ("torch", "safetensors", "transformers import", "Int8Linear")
OF_SUBWORDS, OF_CHARACTERS = ("encode_batch", "attention_mask"), ("utf-32", "normalize_str")
FOREIGN: dict[Loader, tuple[str, ...]] = {
    "onnx": (*OF_TORCH, *OF_CHARACTERS, "openvino"),
    "ngram": (*OF_TORCH, *OF_SUBWORDS, "openvino", "transformer"),
    "torch": (*OF_CHARACTERS, "onnxruntime", "openvino"),
    "openvino": (*OF_TORCH, *OF_CHARACTERS, "onnxruntime"),
}
NEEDED: dict[Loader, set[str]] = {
    "onnx": {"onnxruntime"},
    "ngram": {"onnxruntime"},
    "torch": {"torch", "transformers", "safetensors"},
    "openvino": {"openvino"},
}
RUNTIMES = {"torch", "transformers", "safetensors", "onnxruntime", "openvino", "onnx", "toolkit", "exporters", "hbt"}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_carries_no_code_of_other_runtimes_and_networks(loader: Loader) -> None:
    text = loader_source(loader)
    assert [word for word in FOREIGN[loader] if word in text] == []
    assert "exporters" not in text
    assert text.count("class Model:") == text.count("def load(") == text.count("__main__") == 1
    assert len(text.splitlines()) < (360 if loader == "torch" else 265)


@pytest.mark.parametrize("command", [["check", "--select", "E,F,W,I,B,UP,SIM,RUF100"], ["format", "--check"]])
@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_reads_as_if_written_by_hand(loader: Loader, command: list[str]) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    words = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", "--target-version", "py311"]
    done = subprocess.run([*words, "-"], input=loader_source(loader), capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def made(loader: Loader, learned: Classifier, toy: Corpus, folder: Path) -> Path:
    """A package folder without card and manifest, for one of the loaders."""
    if loader == "ngram":
        return package_of(student(), "onnx-int8", folder)
    target = {"onnx": "onnx-fp32", "torch": "torch-int8", "openvino": "openvino-int8"}[loader]
    if loader == "openvino":
        pytest.importorskip("nncf")
    written(target, learned, evidence_of(toy, learned.threshold), folder, search="off")
    return folder


@pytest.mark.parametrize("loader", LOADERS)
def test_a_shipped_loader_needs_its_runtime_alone_and_scores_as_hbt_does(
    loader: Loader, learned: Classifier, toy: Corpus, tmp_path: Path
) -> None:
    folder = made(loader, learned, toy, tmp_path / "package")
    assert (folder / "how_to_load.py").read_text("utf-8") == loader_source(loader)
    script = (
        "import sys, json\n"
        f"for name in {sorted(RUNTIMES - NEEDED[loader])}: sys.modules[name] = None\n"
        "from how_to_load import load\n"
        "model, texts = load(threads=1, verify=False), json.loads(sys.argv[1])\n"
        "print(json.dumps([model.labels, model.threshold, model.predict_logits(texts).tolist(), "
        "model.predict_proba(texts, batch_size=4).tolist(), model.predict(texts)]))"
    )
    if loader == "torch":  # transformers asks for onnx, if only to learn that it is missing
        script = script.replace("'onnx', ", "")
    environment = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-P", "-c", script, json.dumps([text for text in ODD_TEXTS if "\x00" not in text])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    labels, threshold, logits, batched, answers = json.loads(done.stdout)

    target = {"onnx": "onnx-fp32", "ngram": "onnx-int8", "torch": "torch-int8", "openvino": "openvino-int8"}[loader]
    own = exporter(target).load(folder, threads=1)
    texts = [text for text in ODD_TEXTS if "\x00" not in text]
    assert (tuple(labels), threshold) == (own.labels, own.threshold)
    np.testing.assert_array_equal(np.array(logits, np.float32), own.predict_logits(texts))
    np.testing.assert_array_equal(np.array(batched, np.float32), own.predict_proba(texts, batch_size=4))
    assert [label for label, _ in answers] == [label for label, _ in own.predict(texts)]


def test_the_loader_of_an_onnx_package_follows_its_network(tmp_path: Path) -> None:
    assert NGRAM == MODEL_TYPE
    assert (onnx_loader(MODEL_TYPE), onnx_loader("bert"), onnx_loader("")) == ("ngram", "onnx", "onnx")
    ngram = student()
    written("onnx-fp32", ngram, evidence(ngram, ["sea"]), tmp_path / "made")
    assert (tmp_path / "made" / "how_to_load.py").read_text("utf-8") == loader_source("ngram")


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

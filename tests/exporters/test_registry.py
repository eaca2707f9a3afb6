"""Built-in and third-party targets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.registry import exporter, targets
from toolkit.export.targets import list_targets
from toolkit.utils.errors import InputError

ROOT = Path(__file__).parents[2]
OWN = ["onnx-int8", "onnx-fp32", "onnx-fp16", "onnx-int4", "torch-int8", "openvino-int8", "c", "js", "python"]
THIRD_PARTY = """
from dataclasses import dataclass

from exporters.loaders.compose import load_package, loader_source
from exporters.onnx_fp32 import DISTRIBUTIONS, export_graph
from exporters.registry import Candidate


@dataclass(frozen=True)
class Shouting:
    name: str = "shouting"
    summary: str = "the graph under another name"
    promise: str = "same"
    reference: str | None = "onnx-fp32"
    file: str = "model.onnx"
    distributions: tuple[str, ...] = DISTRIBUTIONS

    def available(self):
        return None

    def candidates(self, classifier, evidence, settings, reference):
        def write(folder, in_float):
            export_graph(classifier, folder / self.file)
            return {"loud": True}

        return [Candidate("loud", write)]

    def loader(self, folder):
        return loader_source("onnx")

    def needs(self, folder):
        return self.distributions

    def load(self, folder, threads=None):
        return load_package("onnx", folder, threads)
"""


def test_every_target_has_an_exporter_of_that_name() -> None:
    assert list(targets())[: len(OWN)] == OWN
    for name in OWN:
        found = exporter(name)
        assert found.name == name
        assert "def load(" in found.loader(Path("missing"))
        assert found.summary
        assert found.reference is None or found.reference in OWN


@pytest.mark.parametrize("name", ["nope", "", "onnx", "ONNX-INT8", "exporters.registry"])
def test_an_unknown_target_is_reported_with_the_available_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"no such target; available: onnx-int8, onnx-fp32"):
        exporter(name)


def test_missing_modules_are_listed_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.openvino_int8.missing_modules", lambda *_, **__: "openvino missing: pip install x")
    found = {each.name: each for each in list_targets()}
    assert found["openvino-int8"].missing == "openvino missing: pip install x"
    assert found["onnx-int8"].missing == ""


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """The environment of a process with a third-party distribution of targets installed, one of them broken."""
    site = tmp_path / "site"
    info = site / "shout-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "shout.py").write_text(THIRD_PARTY, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shout\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(
        "[hbt.exporters]\nshouting = shout:Shouting\nbroken = shout:Missing\nonnx-int8 = shout:Shouting\n", "utf-8"
    )
    (info / "RECORD").write_text("", "utf-8")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "HF_HUB_OFFLINE": "1"}


def hbt(environment: dict[str, str], where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toolkit.cli", *arguments]
    return subprocess.run(command, env=environment, cwd=where, capture_output=True, text=True)


@pytest.mark.slow
def test_a_third_party_target_is_listed_and_exported(outside: dict[str, str], tmp_path: Path, toy_csv: Path) -> None:
    found = {each["name"]: each for each in json.loads(hbt(outside, tmp_path, "targets", "--json").stdout)}
    assert list(found) == [*OWN, "shouting", "broken"]
    assert found["shouting"] == {
        "name": "shouting", "summary": "the graph under another name", "distribution": "shout", "missing": "",
    }  # fmt: skip
    assert "shout does not load" in found["broken"]["missing"]
    assert found["onnx-int8"]["distribution"] == "hbt"

    made = hbt(outside, tmp_path, "compress", "checkpoint", "--data", str(toy_csv), "--target", "shouting")
    assert made.returncode == 0, made.stderr
    manifest = json.loads((tmp_path / "models" / "checkpoint-shouting" / "manifest.json").read_text("utf-8"))
    assert manifest["target"] == "shouting"
    done = hbt(outside, tmp_path, "predict", "models/checkpoint-shouting", "sea")
    assert done.returncode == 0, done.stderr

    refused = hbt(outside, tmp_path, "compress", "checkpoint", "--data", str(toy_csv), "--target", "broken")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert refused.stderr.startswith("hbt: --target broken: shout does not load")


@pytest.fixture
def toy_csv(tmp_path: Path, learned: object) -> Path:
    """A labeled file, and next to it the folder `checkpoint` of a classifier with its labels."""
    from toolkit.modeling.classifier import Classifier, save_classifier

    assert isinstance(learned, Classifier)
    save_classifier(learned, tmp_path / "checkpoint")
    file = tmp_path / "toy.csv"
    lines = [f"{('sea', 'sun')[i % 2]} number {i} of the made-up texts,{('sea', 'sun')[i % 2]}" for i in range(240)]
    file.write_text("text,label\n" + "\n".join(lines) + "\n", "utf-8")
    return file

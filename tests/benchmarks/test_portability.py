"""Packages on emulated processors: the same labels, and scores within the tolerance of the manifest."""

import copy
import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.portability import __main__ as program, processors
from benchmarks.portability.compare import Line, compare, within_tolerance
from benchmarks.portability.processors import CACHE, PROCESSORS, prepare
from exporters.registry import exporter
from tests.exporters.ngram.test_graph import student
from tests.exporters.test_loader_file import cascade_of
from tests.helpers import evidence_of, examples, rehash, written
from toolkit import package
from toolkit.config.settings import CorpusSettings, ModelSettings, TrainingSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.demo import DEMO_SENTENCES, demo_table
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.surgery import Kept, cut
from toolkit.training.trainer import fit
from toolkit.utils.errors import InputError
from toolkit.utils.machine import describe_machine

IN_CI = [each for each in PROCESSORS if each.name in ("Nehalem", "Haswell", "Cortex-A72", "Neoverse-N1")]


@pytest.fixture(scope="module")
def demo() -> Corpus:
    return corpus_from_table(demo_table(), CorpusSettings(data="demo", folds=2))


@pytest.fixture(scope="module")
def two_layers(demo: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A transformer that was trained on the demo corpus for an epoch."""
    model = ModelSettings(model="shape:2x64", pooling="mean", max_length=32)
    made = build_classifier(model, demo.label_names, demo.take(demo.rows("train")), seed=0)
    how = TrainingSettings(epochs=1, learning_rate=3e-3, batch_size=16)
    fit(made, examples(demo, "train"), examples(demo, "validation"), how, 0, tmp_path_factory.mktemp("fit"))
    return made


def shipped(folder: Path, target_name: str = "onnx-int8") -> Path:
    """Write the manifest of a folder without one."""
    target = exporter(target_name)
    golden = package.golden_scores(target.load(folder), list(DEMO_SENTENCES))
    package.write_manifest(folder, target, describe_machine().isa, {}, golden)
    return folder


def test_a_package_with_another_loader_is_not_run(demo: Corpus, tmp_path: Path) -> None:
    written("onnx-int8", student(), evidence_of(demo), tmp_path / "ngram")
    folder = shipped(tmp_path / "ngram")
    loader = folder / "how_to_load.py"
    loader.write_text(loader.read_text("utf-8") + "\nPath('ran').touch()\n", "utf-8")
    with pytest.raises(InputError, match=r"how_to_load\.py has changed"):
        compare([folder], ["a"], [], tmp_path / "cache")
    rehash(folder)
    with pytest.raises(InputError, match=r"its how_to_load\.py is not that of this hbt"):
        compare([folder], ["a"], [], tmp_path / "cache")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("apt-get", "needs apt-get"),
        ("keyring", r"no .*; apt-get install debian-archive-keyring"),
        ("linux", "on Linux"),
    ],
)
def test_a_machine_without_debian_is_one_line(
    missing: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = {"apt-get", "dpkg", "dpkg-deb"} - {missing}
    monkeypatch.setattr(processors.shutil, "which", lambda name: name if name in present else None)
    monkeypatch.setattr(sys, "platform", "darwin" if missing == "linux" else "linux")
    monkeypatch.setattr(processors, "KEYRING", tmp_path / "keyring")
    if missing != "keyring":
        (tmp_path / "keyring").touch()
    with pytest.raises(InputError, match=message) as caught:
        prepare(PROCESSORS, tmp_path / "requirements.txt", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


LINE: Line = {
    "labels_changed": 0, "golden_labels_changed": 0, "score_difference": 0.004, "golden_score_difference": 0.0,
    "tolerance": 0.005,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"labels_changed": 1}, False),
        ({"golden_labels_changed": 1}, False),
        ({"score_difference": 0.0051}, False),
        ({"golden_score_difference": 0.0051}, False),
        ({"score_difference": float("nan")}, False),
        ({"golden_score_difference": float("nan")}, False),
    ],
)
def test_a_changed_label_or_a_large_difference_is_outside_the_tolerance(changed: Line, expected: bool) -> None:
    assert within_tolerance(LINE | changed) == expected


def test_an_unknown_processor_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["portability", "models/a", "--data", "demo", "--processors", "z80"])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 2
    assert "--processors: z80; known: nehalem, haswell, cortex-a72" in capsys.readouterr().err


@pytest.mark.slow
def test_every_kind_of_package_agrees_on_all_processors(
    two_layers: Classifier, demo: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned = replace(two_layers, network=copy.deepcopy(two_layers.network))
    cut(pruned.network, [None, Kept(heads=(0,), neurons=tuple(range(100)))])
    write: dict[str, Callable[[Path], object]] = {
        "ngram": lambda folder: written("onnx-int8", student(), evidence_of(demo), folder),
        "c": lambda folder: written("c", student(), evidence_of(demo), folder),
        "layers-2": lambda folder: written("onnx-int8", two_layers, evidence_of(demo), folder, search="off"),
        "pruned": lambda folder: written("onnx-int8", pruned, evidence_of(demo), folder, search="off"),
        "cascade": lambda folder: cascade_of(two_layers, demo, folder, "onnx-int8"),
    }
    folders = []
    for name, make in write.items():
        make(tmp_path / name)
        folders.append(shipped(tmp_path / name, "c" if name == "c" else "onnx-int8"))
    try:
        prepare(IN_CI, folders[0] / "requirements.txt", CACHE)
    except InputError as error:
        pytest.skip(str(error))
    given = [*map(str, folders), "--data", "demo", "--record", "--out", str(tmp_path / "table.csv"), "--processors"]
    monkeypatch.setattr(sys, "argv", ["portability", *given, *(each.cpu for each in IN_CI)])
    with pytest.raises(SystemExit) as stop:
        program.main()
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert stop.value.code == 0, lines
    assert {(line["package"], line["processor"]) for line in lines} == {
        (name, processor) for name in write for processor in (describe_machine().isa, *(each.shown for each in IN_CI))
    }
    assert {line["texts"] for line in lines} == {"500"}
    for folder in folders:
        checked_on = json.loads((folder / "manifest.json").read_text("utf-8"))["checked_on"]
        assert checked_on == [describe_machine().isa, *(each.shown for each in IN_CI)]
        assert package.verify(folder).problems == []

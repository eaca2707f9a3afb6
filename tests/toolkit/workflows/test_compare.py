import json
import shutil
from pathlib import Path

import pytest

from tests.helpers import Finished, Hbt, tiny_recipe
from toolkit.data.corpus import load_corpus
from toolkit.stages.result import StageResult
from toolkit.utils.errors import InputError
from toolkit.workflows.compare import compare_stages, compare_stages_on_slices

RUN = Path("runs/tiny")
STUDENT, ARTIFACT, PACKAGE = RUN / "2-distillation", RUN / "4-export-onnx-int8", Path("models/tiny-onnx-int8")


def test_stored_predictions_are_compared_and_no_model_is_run(
    at_home: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.modeling.classifier.load_classifier", lambda *_: pytest.fail("a model was loaded"))
    found = compare_stages(RUN / "0-floor", PACKAGE)
    assert (found.a, found.b) == ("runs/tiny/0-floor", "models/tiny-onnx-int8")
    linear, artifact = StageResult.load(RUN / "0-floor"), StageResult.load(ARTIFACT)
    expected = artifact.metrics["macro_f1"] - linear.metrics["macro_f1"]
    assert found.comparison.macro_f1_difference == pytest.approx(expected)
    accuracy = artifact.metrics["accuracy"] - linear.metrics["accuracy"]
    assert found.comparison.accuracy_difference == pytest.approx(accuracy)
    rows = load_corpus(tiny_recipe().corpus).rows("test")
    assert found.comparison.rows == len(rows)
    assert compare_stages(PACKAGE, PACKAGE).comparison.verdict == "equivalent"


def test_compare_prints_a_table_or_json(at_home: Finished, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert hbt("compare", str(STUDENT), str(PACKAGE)) == 0
    page = capsys.readouterr().out
    assert "models/tiny-onnx-int8" in page
    assert "at a margin of 1 point" in page
    assert hbt("compare", str(RUN / "0-floor"), str(STUDENT), "--margin", "0.9", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["comparison"]["margin"] == 0.9
    assert found["comparison"]["verdict"] == "equivalent"


def test_runs_with_different_splits_are_refused(copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(RUN, "runs/other")
    split = json.loads(Path("runs/other/corpus.json").read_text())
    Path("runs/other/corpus.json").write_text(json.dumps(split | {"fingerprint": "another"}))
    assert hbt("compare", "runs/tiny", "runs/other") == 2
    assert "split differently" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["nothing", ".", "runs", "models/demo"])
def test_a_path_that_is_not_a_stage_is_reported(copied: Path, path: str) -> None:
    with pytest.raises(InputError, match="not a run, a stage of a run or a package"):
        compare_stages(Path(path), PACKAGE)


def test_a_package_without_its_run_is_reported(copied: Path) -> None:
    PACKAGE.rename("models/moved")
    with pytest.raises(InputError, match="its run is missing"):
        compare_stages(Path("models/moved"), STUDENT)
    shutil.rmtree("runs")
    with pytest.raises(InputError, match="its run is missing"):
        compare_stages(Path("models/moved"), STUDENT)


def test_slices_are_printed_or_in_json(at_home: Finished, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert hbt("compare", str(STUDENT), str(PACKAGE), "--slices") == 0
    assert "label: hate" in capsys.readouterr().out
    assert hbt("compare", str(RUN / "0-floor"), str(PACKAGE), "--slices", "--json") == 0
    found = json.loads(capsys.readouterr().out)["slices"]
    assert (found["a"], found["b"]) == ("runs/tiny/0-floor", "models/tiny-onnx-int8")
    corpus = load_corpus(tiny_recipe().corpus)
    assert set(found["lost"] + found["gained"]) <= set(corpus.rows("test").tolist())
    assert sum(each["only_a_right"] for each in found["slices"] if each["kind"] == "label") == len(found["lost"])
    assert not any(text in json.dumps(found, ensure_ascii=False) for text in corpus.take(corpus.rows("test")))


def test_manifest_and_card_have_the_slices_of_the_package_against_its_teacher(at_home: Finished) -> None:
    expected = compare_stages_on_slices(RUN / "1-baseline", PACKAGE).as_dict()
    evaluation = json.loads((PACKAGE / "manifest.json").read_text("utf-8"))["evaluation"]
    found = evaluation["forgotten"][0]
    assert found["a"] == "fold ensemble"
    assert {**found, "a": "", "b": ""} == json.loads(json.dumps({**expected, "a": "", "b": ""}))
    assert evaluation["metrics"] == StageResult.load(ARTIFACT).metrics
    card = (PACKAGE / "README.md").read_text("utf-8").split("## What compression forgot")[1].split("\n## ")[0]
    worst = found["slices"][0]
    assert f"| {worst['kind']}: {worst['name']} | {worst['rows']:,} | {worst['a_accuracy']:.4f} |" in card
    assert f"{len(found['lost'])} that A labels right are lost" in card

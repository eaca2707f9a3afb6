"""`hbt runs`, `hbt show`, --json of the verbs that had none, and shell completion."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import Finished, Hbt
from toolkit.stages.result import StageResult


def test_runs_lists_runs_and_packages_with_their_figures(
    at_home: Finished, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("runs", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    exported = StageResult.load(Path("runs/tiny/4-export-onnx-int8"))
    (run,) = found["runs"]
    assert (run["run"], run["model"], run["finished"]) == ("runs/tiny", "layers:1", True)
    assert run["macro_f1"] == exported.metrics["macro_f1"]
    (package,) = found["packages"]
    assert (package["package"], package["run"]) == ("models/tiny-onnx-int8", "runs/tiny")
    assert (package["macro_f1"], package["p50_ms"]) == (exported.metrics["macro_f1"], 1.0)
    assert hbt("runs") == 0
    page = capsys.readouterr().out
    assert "runs/tiny" in page and "models/tiny-onnx-int8" in page


def test_an_unfinished_or_damaged_run_and_a_package_without_its_run_are_listed(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("runs/tiny", "runs/half")
    Path("runs/half/summary.json").unlink()
    shutil.copytree("runs/tiny", "runs/odd")
    Path("runs/odd/corpus.json").write_text("{")
    shutil.move("runs/tiny", "elsewhere")
    assert hbt("runs", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    half, odd = found["runs"]
    assert (half["finished"], half["problem"]) == (False, "")
    assert "corpus.json: missing or damaged" in odd["problem"]
    (package,) = found["packages"]
    assert (package["run"], package["macro_f1"]) == (None, None)
    assert hbt("runs") == 0


def test_runs_of_an_empty_folder_says_what_to_do(
    tmp_path: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hbt("runs") == 0
    assert "hbt auto FILE" in capsys.readouterr().out
    assert hbt("show", "runs/x") == 2
    assert "runs/x: not a run" in capsys.readouterr().err


def test_show_prints_the_tables_of_a_run_without_its_data(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("comments.csv").unlink()
    for place in ("runs/tiny", "models/tiny-onnx-int8"):
        assert hbt("show", place) == 0
        page = capsys.readouterr().out
        for shown in ("linear baseline", "student layers:1", "paired comparison", "package: models/tiny-onnx-int8"):
            assert shown in page
    assert hbt("show", "runs/tiny", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    recorded = json.loads(Path("runs/tiny/summary.json").read_text("utf-8"))
    assert (found["rows"], found["comparisons"]) == (recorded["rows"], recorded["comparisons"])


def test_train_and_compress_print_json(copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert hbt("run", "--recipe", "runs/tiny/recipe.toml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["package"]) == ("runs/tiny", "models/tiny-onnx-int8")
    assert found["rows"][0]["stage"] == "linear baseline"
    assert hbt("compress", "runs/tiny", "--target", "onnx-fp32", "--json") == 0
    assert json.loads(capsys.readouterr().out)["package"] == "models/tiny-onnx-fp32"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("hbt compress runs/", "runs/tiny"),
        ("hbt compare models/", "models/tiny-onnx-int8"),
        ("hbt predict ", "models/tiny-onnx-int8"),
        ("hbt run --target onnx-f", "onnx-fp32\nonnx-fp16"),
        ("hbt students comments.csv --teacher ", "runs/tiny"),
    ],
)
def test_the_shell_completes_runs_packages_and_targets(at_home: Finished, typed: str, expected: str) -> None:
    words = typed.split(" ")
    variables = {"_HBT_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.cli"], env=os.environ | variables, capture_output=True, text=True
    )
    assert [line.split(",")[1] for line in done.stdout.splitlines()] == expected.split("\n"), done.stderr

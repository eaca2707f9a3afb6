"""The command line with students, trimmed vocabularies and pruning."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.helpers import TINY, Hbt, contents
from toolkit import package as packages
from toolkit.config.recipe import Recipe
from toolkit.data.tables import read_table
from toolkit.modeling.classifier import save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.utils.errors import InputError

TINY_RUN = ("--data", "comments.csv", "--model", "shape:1x32", "--epochs", "1", "--folds", "2", "--name", "tiny")


def made(home: Path) -> dict[str, bytes]:
    """The files of all runs and packages, without the record of commands that failed."""
    files = contents(home / "runs") | contents(home / "models")
    return {name: held for name, held in files.items() if Path(name).name not in ("tracking.jsonl", "mlflow.json")}


def test_an_ngram_student_is_trained_compressed_verified_and_used(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("run", "--pipeline", "baseline_kd_quant", *TINY_RUN, "--student", "ngram:10") == 0
    assert hbt("compress", "runs/tiny", "--target", "onnx-fp32") == 0
    for folder in ("models/tiny-onnx-int8", "models/tiny-onnx-fp32"):
        assert hbt("verify", folder) == 0
        capsys.readouterr()
        assert hbt("predict", folder, "ভালো", "a\u200b") == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
    before = made(workplace)
    assert hbt("compress", "runs/tiny", "-o", "models/cut", "--trim-vocabulary") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hbt: --trim-vocabulary: ")
    assert line.endswith("leave --trim-vocabulary out")
    assert made(workplace) == before


@pytest.fixture
def wide(workplace: Path) -> str:
    """Folder of an encoder whose vocabulary is larger than the comments need."""
    texts = read_table(workplace / "comments.csv").columns["Comments"]
    save_classifier(build_classifier(TINY, ("a", "b"), [*texts, *["zebras gallop over grass"] * 9], 1), Path("wide"))
    return "wide"


@pytest.mark.slow
def test_a_trimmed_package_has_the_logits_of_the_untrimmed_one(
    workplace: Path, wide: str, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = [wide if each == "shape:1x32" else each for each in TINY_RUN]
    fp32 = ("--target", "onnx-fp32")
    assert hbt("run", "--pipeline", "baseline_quant", *tiny, *fp32, "--trim-vocabulary") == 0
    trimmed = Path("models/tiny-onnx-fp32")
    for out, typed in (("untrimmed", []), ("fewest", ["--trim-vocabulary"]), ("some", ["--trim-vocabulary", "627"])):
        assert hbt("compress", "runs/tiny", *fp32, "-o", out, *typed) == 0
    texts = read_table(workplace / "comments.csv").columns["Comments"]
    expected = packages.load(Path("untrimmed")).predict_logits(texts)
    pieces = {}
    for folder in (Path("untrimmed"), trimmed, Path("fewest"), Path("some")):
        np.testing.assert_allclose(packages.load(folder).predict_logits(texts), expected, atol=1e-5)
        assert ("- vocabulary trimmed from " in (folder / "README.md").read_text("utf-8")) is (
            folder.name != "untrimmed"
        )
        assert hbt("verify", str(folder)) == 0
        pieces[folder.name] = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    assert pieces["fewest"] == pieces[trimmed.name] < pieces["some"] == 627 < pieces["untrimmed"]
    before = made(workplace)
    capsys.readouterr()
    assert hbt("compress", "runs/tiny", *fp32, "-o", "models/other", "--trim-vocabulary", "5") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"--trim-vocabulary 5: the texts need {pieces['fewest']} pieces" in line
    assert made(workplace) == before


def test_students_prints_a_table_or_json(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("students", "comments.csv", "--teacher", "runs/tiny", "--students", "ngram:9", "--name", "few")
    assert hbt(*command, "--budget-ms", "2", "--json") == 0
    (student,) = json.loads(capsys.readouterr().out)
    assert (student["student"], student["within_budget"], student["package"]) == (
        "ngram:9",
        True,
        "models/few-ngram-9-onnx-int8",
    )
    monkeypatch.setattr("toolkit.stages.distillation.fit_ngram", lambda *_: pytest.fail("trained again"))
    assert hbt(*command, "--budget-mb", "0.001") == 0
    page = capsys.readouterr().out
    assert "ngram:9" in page
    assert "next: hbt predict models/few-ngram-9-onnx-int8" in page


@pytest.mark.parametrize("typed", [[], ["--students", " "]])
def test_students_without_a_list_trains_the_default_students(
    workplace: Path, hbt: Hbt, monkeypatch: pytest.MonkeyPatch, typed: list[str]
) -> None:
    trained: list[Any] = []

    def search_students(recipe: Recipe, students: Any, *_: Any) -> None:
        trained.extend(students)
        raise InputError("seen")

    monkeypatch.setattr("toolkit.workflows.student_search.search_students", search_students)
    hbt("students", "comments.csv", "--teacher", "a", *typed)
    assert trained == ["ngram", "layers:1", "layers:2", "layers:4", "cascade"]


@pytest.mark.slow
def test_compress_prunes_a_run(copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ("--prune-sparsity", "0.4", "--fine-tune-epochs", "1", "--calib-samples", "32")
    assert hbt("compress", "runs/tiny", "--target", "onnx-fp32", *typed) == 0
    printed = capsys.readouterr()
    assert "onnx-fp32, pruned structured-0.4" in printed.out
    assert "of the encoder's weights to 1 layer" in printed.err
    assert hbt("verify", "models/tiny-onnx-fp32-structured-0.4") == 0


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--prune-sparsity", "2"), "--prune-sparsity: 2.0 is outside (0, 1)"),
        (("--prune-sparsity", "0.999"), "--prune-sparsity 0.999: one layer with one head and 16 neurons still takes"),
        (("--prune-method", "wanda", "--prune-to-ms", "1"), "use --prune-method structured"),
    ],
)
def test_invalid_pruning_settings_are_one_line(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], typed: tuple[str, ...], message: str
) -> None:
    before = made(copied)
    assert hbt("compress", "runs/tiny", "-o", "models/other", *typed) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert made(copied) == before

"""Nested cross-validation: every row is tested once, by models that were not trained on it."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from tests.helpers import Hbt, tiny_recipe, write_comments
from toolkit.stages.run_folder import Run
from toolkit.utils.errors import InputError
from toolkit.workflows.outer_folds import OuterFolds, train_outer_folds

PARTS = 2
BASELINE_ONLY = {"student": None, "pipeline": "baseline", "model": "shape:1x32", "epochs": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A teacher over two outer folds, trained in the current folder."""
    home = tmp_path_factory.mktemp("outer")
    write_comments(home / "comments.csv", 240)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
        patch.setattr("toolkit.workflows.run_summary.median_latency_ms", lambda *_: 1.0)
        train_outer_folds(tiny_recipe(name="teacher", **BASELINE_ONLY), PARTS)
        yield home


@pytest.fixture(scope="module")
def student(home: Path) -> OuterFolds:
    recipe = tiny_recipe(name="student", student="ngram:10", teacher=("runs/teacher",))
    return train_outer_folds(recipe, PARTS)


def test_scores_are_those_of_all_rows_together(home: Path, student: OuterFolds) -> None:
    """Compared with scikit-learn on the predictions in the folders of the runs."""
    truth: dict[int, int] = {}
    predicted: dict[int, int] = {}
    for part in range(1, PARTS + 1):
        run = Run.open(home / "runs" / f"student-outer-{part}")
        stage = run.folder / "2-distillation"
        threshold = json.loads((stage / "result.json").read_text("utf-8"))["rule"]["threshold"]
        with (stage / "predictions.csv").open(encoding="utf-8") as lines:
            for line in csv.DictReader(lines):
                if line["split"] == "test":
                    row = int(line["row"])
                    assert row not in predicted
                    negative, positive = (float(line[name]) for name in line if name.startswith("logit_"))
                    probability = 1 / (1 + np.exp(negative - positive))
                    predicted[row] = int(probability >= (0.5 if threshold is None else threshold))
                    truth[row] = int(run.corpus.labels[row])
    assert sorted(predicted) == list(range(240))
    wanted = f1_score([truth[row] for row in range(240)], [predicted[row] for row in range(240)], average="macro")
    found = {model.name: model for model in student.models}
    assert found["student"].macro_f1 == pytest.approx(wanted, abs=1e-9)
    assert list(found) == ["linear baseline", "teacher", "student"]
    assert [(each.b, each.a, each.comparison.rows) for each in student.comparisons] == [
        ("teacher", "linear baseline", 240),
        ("student", "linear baseline", 240),
        ("student", "teacher", 240),
    ]


def test_the_teacher_of_an_outer_fold_never_saw_its_test_rows(home: Path, student: OuterFolds) -> None:
    for part, folder in enumerate(student.folders, 1):
        run, teacher = Run.open(folder), Run.open(home / "runs" / f"teacher-outer-{part}")
        assert run.recipe.distillation.teacher == (f"runs/teacher-outer-{part}",)
        assert run.corpus.fingerprint == teacher.corpus.fingerprint


def test_a_teacher_that_was_trained_on_test_rows_is_refused(home: Path, student: OuterFolds) -> None:
    recipe = tiny_recipe(name="leaky", student="ngram:10", teacher=("runs/teacher-outer-1",))
    with pytest.raises(InputError, match="was trained on rows that other outer folds test"):
        train_outer_folds(recipe, PARTS)
    with pytest.raises(InputError, match="train the teacher with --outer-folds 3, too"):
        train_outer_folds(tiny_recipe(name="leaky", student="ngram:10", teacher=("runs/teacher",)), 3)
    assert not list((home / "runs").glob("leaky*"))


def test_the_same_command_again_trains_nothing(home: Path, student: OuterFolds) -> None:
    written = (home / "runs" / "student-outer.json").read_text("utf-8")
    before = {file: file.stat().st_mtime_ns for file in home.glob("runs/student-outer-*/2-distillation/*")}
    recipe = tiny_recipe(name="student", student="ngram:10", teacher=("runs/teacher",))
    assert train_outer_folds(recipe, PARTS) == student
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (home / "runs" / "student-outer.json").read_text("utf-8") == written


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--outer-folds", "1"), "--outer-folds: 1 is too few"),
        (("--outer-folds", "2", "--outer-fold", "1/2"), "contradicts --outer-folds"),
        (("--outer-fold", "3/2"), "--outer-fold: '3/2' is not a part I/N"),
        (("--outer-folds", "2", "--data", "split.csv"), "remove its column split"),
    ],
)
def test_wrong_use_is_one_line(
    home: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], problem: str
) -> None:
    lines = ["text,label,split", *(f"text {i},{i % 2},{('train', 'test')[i % 3 == 0]}" for i in range(60))]
    (home / "split.csv").write_text("\n".join(lines), "utf-8")
    before = sorted((home / "runs").iterdir())
    capsys.readouterr()
    assert hbt("train", *options, "--model", "shape:1x32", "--name", "wrong") == 2
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1
    assert sorted((home / "runs").iterdir()) == before

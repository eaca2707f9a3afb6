import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import TINY, tiny_recipe
from toolkit.config.recipe import Recipe
from toolkit.data.corpus import Corpus
from toolkit.modeling.classifier import save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.stages.inputs import contents_of_inputs, refuse_changed_inputs
from toolkit.stages.run_folder import Run
from toolkit.utils.errors import InputError


def recipe(**given: Any) -> Recipe:
    return tiny_recipe(pipeline="baseline_kd", student="shape:1x32", **given)


def save(toy: Corpus, folder: str, seed: int) -> None:
    save_classifier(build_classifier(TINY, toy.label_names, toy.take(toy.rows("train")), seed), Path(folder))


@pytest.fixture
def given(workplace: Path, toy: Corpus) -> Path:
    """An encoder, a student, a teacher and unlabeled texts."""
    for seed, name in enumerate(("encoder", "student", "teacher")):
        save(toy, name, seed)
    Path("more.txt").write_text("first text\nsecond text\n", "utf-8")
    return workplace


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"model": "encoder"}, "--model encoder"),
        ({"student": "student"}, "--student student"),
        ({"teacher": ("teacher",)}, "--teacher teacher"),
        ({"unlabelled": "more.txt"}, "--unlabelled more.txt"),
    ],
)
def test_an_input_with_another_content_under_the_same_name_is_refused(
    given: Path, toy: Corpus, settings: dict[str, Any], option: str
) -> None:
    made = tiny_recipe(**{"pipeline": "baseline_kd", "student": "shape:1x32"} | settings)
    Run.of_recipe(made).begin(inputs=contents_of_inputs(made))
    resumed = Run.of_recipe(made)
    refuse_changed_inputs(resumed)
    if option.startswith("--unlabelled"):
        Path("more.txt").write_text("first text\nsecond text\nthird text\n", "utf-8")
    else:
        save(toy, option.split()[1], seed=9)
    with pytest.raises(InputError, match=f"^{option}: changed since runs/tiny was started; restore"):
        refuse_changed_inputs(resumed)
    refuse_changed_inputs(resumed, ["--other"])
    (resumed.folder / "inputs.json").unlink()  # a run that is older than this record
    refuse_changed_inputs(Run.of_recipe(made))


def test_times_and_files_beside_the_model_do_not_count(given: Path) -> None:
    before = contents_of_inputs(recipe(teacher=("teacher",), unlabelled="more.txt"))
    shutil.copytree("teacher", "copy")  # with other times
    shutil.rmtree("teacher")
    shutil.move("copy", "teacher")
    Path("teacher/README.md").write_text("a note", "utf-8")
    assert contents_of_inputs(recipe(teacher=("teacher",), unlabelled="more.txt")) == before
    assert set(before) == {"--teacher teacher", "--unlabelled more.txt"}


def test_a_teacher_that_was_trained_again_stops_the_run_of_its_student(copied: Path, hbt: Any, capsys: Any) -> None:
    how = ("train", "--data", "comments.csv", "--folds", "2", "--teacher", "runs/tiny", "--student", "ngram:10")
    assert hbt(*how, "--name", "student") == 0
    seconds = json.loads(Path("runs/tiny/1-baseline/result.json").read_text("utf-8"))
    Path("runs/tiny/1-baseline/result.json").write_text(json.dumps(seconds | {"seconds": 9.0}), "utf-8")
    assert hbt(*how, "--name", "student") == 0
    predictions = Path("runs/tiny/1-baseline/fold-1/predictions.csv")
    predictions.write_text(predictions.read_text("utf-8").replace("0.1", "0.2"), "utf-8")
    assert hbt(*how, "--name", "student") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hbt: --teacher runs/tiny: changed since runs/student was started;")
    assert hbt(*how, "--name", "other") == 0
    assert hbt(*how, "--name", "student", "--force") == 0


def test_a_finished_run_is_not_pruned_with_other_unlabeled_texts(copied: Path, hbt: Any, capsys: Any) -> None:
    recipe_file, inputs = Path("runs/tiny/recipe.toml"), Path("runs/tiny/inputs.json")
    Path("more.txt").write_text("first text\nsecond text\n", "utf-8")
    text = recipe_file.read_text("utf-8").replace("[distillation]\n", '[distillation]\nunlabelled = "more.txt"\n')
    recipe_file.write_text(text, "utf-8")
    inputs.write_text(json.dumps(contents_of_inputs(Run.open(Path("runs/tiny")).recipe)), "utf-8")
    Path("more.txt").write_text("first text\nsecond text\nthird text\n", "utf-8")
    assert hbt("compress", "runs/tiny", "--prune-sparsity", "0.5", "-o", "models/pruned") == 2
    assert "--unlabelled more.txt: changed since runs/tiny was started" in capsys.readouterr().err
    assert hbt("compress", "runs/tiny", "--target", "onnx-fp32", "--max-drop", "0.5") == 0  # needs no further texts

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from toolkit.config.cli_options import field_help
from toolkit.config.recipe import DESCRIPTIONS, Recipe
from toolkit.config.settings import Pipeline
from toolkit.config.toml_file import recipe_from, write_recipe
from toolkit.utils.errors import InputError

CHANGED: dict[str, Any] = {
    "data": "a.csv",
    "slice": ("kind", "0:10"),
    "label_names": ("no", "yes"),
    "stratify_by": "source",
    "data_fraction": 0.5,
    "learning_rate": 1e-3,
    "class_weights": True,
    "student": "layers:4",
    "kd_epochs": 3,
    "teacher": ("runs/a", "b"),
    "teacher_folds": "best",
    "unlabelled": "more.txt",
    "augment": True,
    "kd_method": "multi_level",
    "trim_vocabulary": 0,
    "name": "first-run",
    "author": "নীলা",
}


@pytest.mark.parametrize("given", [{}, CHANGED])
def test_a_written_recipe_reads_back_the_same(tmp_path: Path, given: dict[str, Any]) -> None:
    recipe = recipe_from(None, given)
    write_recipe(recipe, tmp_path / "recipe.toml")
    again = recipe_from(tmp_path / "recipe.toml", {})
    assert again == recipe
    assert again.sha256() == recipe.sha256()


def test_tables_that_the_pipeline_does_not_use_are_ignored_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.toml"
    file.write_text("[pruning]\nprune_sparsity = 0.3\n[distillation]\nstudent = 'layers:2'\n", "utf-8")
    both = ("pruning", "distillation")
    assert recipe_from(file, {}, both).pruning.prune_sparsity == 0.3  # no pipeline is named
    assert recipe_from(file, {"pipeline": "baseline_kd_prune"}, both).distillation.student == "layers:2"
    assert capsys.readouterr().err == ""
    found = recipe_from(file, {"pipeline": "baseline_quant"}, both)
    assert (found.pruning, found.distillation) == (Recipe().pruning, Recipe().distillation)
    assert "table [pruning] is ignored, since pipeline baseline_quant" in capsys.readouterr().err
    typed = recipe_from(file, {"pipeline": "baseline_quant", "prune_steps": 2}, both)
    assert typed.pruning.prune_sparsity == 0.3  # the option is refused later, as without a file


def test_explicit_settings_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("[training]\nepochs = 3\nbatch_size = 8\n", "utf-8")
    recipe = recipe_from(file, {"epochs": 7})
    assert (recipe.training.epochs, recipe.training.batch_size) == (7, 8)


def test_an_integer_is_accepted_for_a_float() -> None:
    assert recipe_from(None, {"kd_temperature": 4, "data_fraction": 1}).distillation.kd_temperature == 4.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 3", "epoch: no such setting"),
        ("[trainings]\nepochs = 3", r"no such table \[trainings\]"),
        ("training = 3", "must be a table"),
        ("[training]\nepochs = 3.5", "3.5 is not an integer"),
        ("[training]\nepochs = true", "True is not an integer"),
        ("[training]\nepochs = '3'", "'3' is not an integer"),
        ("[training]\nepochs = 0", "--epochs: 0 is too few"),
        ("[training]\nlearning_rate = nan", "--learning-rate"),
        ("[training]\nlearning_rate = 'fast'", "'fast' is neither a number nor auto"),
        ("[corpus]\nouter_fold = '0/5'", "--outer-fold: '0/5' is not a part I/N"),
        ("[training]\nloss = 'hinge'", "'hinge' is not one of bce, focal"),
        ("[training]\nclass_weights = 1", "1 is not true or false"),
        ("[corpus]\nslice = 'kind'", "'kind' is not a list"),
        ("[corpus]\nslice = [1]", "1 is not a string"),
        ("[corpus]\nfolds = 1", "--folds"),
        ("[corpus]\ndata_fraction = 0", "--data-fraction"),
        ("[corpus]\nlabel_names = ['a', 'a']", "--label-names: duplicate name"),
        ("[model]\nmax_length = 2", "--max-length"),
        ("[distillation]\nteacher = 'runs/a'", "'runs/a' is not a list"),
        ("[distillation]\nteacher = ['runs/a']", "--teacher: needs --student"),
        ("[distillation]\nunlabelled = 'more.txt'", "--unlabelled: needs --student"),
        ("[distillation]\naugment = true", "--augment: needs --student"),
        ("[distillation]\nblend_floor = true", "--blend-floor: needs --student"),
        ("[distillation]\nno_teacher = true", "--no-teacher: only an ngram student"),
        ("[distillation]\nno_teacher = true\nstudent = 'layers:4'", "--no-teacher: only an ngram student"),
        (
            "[distillation]\nno_teacher = true\nstudent = 'ngram'\nteacher = ['a']",
            "--teacher: contradicts --no-teacher",
        ),
        ("[distillation]\nno_teacher = true\nstudent = 'ngram'\naugment = true", "--augment: contradicts --no-teacher"),
        ("[distillation]\nattention_loss_weight = -1", "--attention-loss-weight: -1.0 is negative"),
        ("[distillation]\nkd_method = 'all'", "'all' is not one of logit, hidden"),
        ("[export]\nthis_cpu_only = true\ntarget = 'onnx-fp32'", "--this-cpu-only: needs --target onnx-int8"),
        ("[export]\ntrim_vocabulary = -1", "--trim-vocabulary: -1 is negative"),
        ("[run]\nname = '../up'", "--name"),
        ("[run]\nname = '..'", "--name"),
        ("[run]\nauthor = ''", "--author"),
        ("[run]\npipeline = 'all'", "'all' is not one of baseline"),
        ("[run", "not readable as TOML"),
        ("[run]\nname = 'a'\nname = 'b'", "not readable as TOML"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text, "utf-8")
    with pytest.raises(InputError, match=message) as caught:
        recipe_from(tmp_path / "r.toml", {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing.toml", "."])
def test_a_missing_recipe_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="--recipe"):
        recipe_from(tmp_path / name, {})


def test_every_setting_has_help_and_a_unique_name() -> None:
    tables = get_type_hints(Recipe).values()
    names = [field.name for table in tables for field in dataclasses.fields(table)]
    assert len(set(names)) == len(names)
    assert set(Recipe().flat()) == set(names)
    for table in tables:
        assert set(field_help(table)) == {field.name for field in dataclasses.fields(table)}


def test_runs_made_before_missing_label_keep_their_hash() -> None:
    assert Recipe().sha256() == "e953d0510d55634ac47a6f8fd1d15878db4a2027b29352f558b1d66506cb9d91"
    assert recipe_from(None, {"missing_label": ("NA",)}).sha256() != Recipe().sha256()
    assert recipe_from(None, {"this_cpu_only": True}).sha256() != Recipe().sha256()


@pytest.mark.parametrize(
    ("change", "same"), [({"name": "b", "author": "me", "register": "c"}, True), ({"seed": 1}, False)]
)
def test_the_hash_ignores_author_and_run_name(change: dict[str, Any], same: bool) -> None:
    assert (recipe_from(None, change).sha256() == Recipe().sha256()) is same


def test_the_student_has_the_training_settings_of_the_teacher_but_a_learning_rate_of_its_own() -> None:
    assert Recipe().student_training() == dataclasses.replace(Recipe().training, learning_rate="auto")
    training = recipe_from(None, {"epochs": 9, "kd_learning_rate": 1e-4}).student_training()
    assert (training.epochs, training.learning_rate) == (9, 1e-4)


def test_every_pipeline_is_described() -> None:
    assert set(DESCRIPTIONS) == set(Pipeline.__args__)  # type: ignore[attr-defined]


def test_the_recipe_imports_nothing_heavy() -> None:
    code = (
        "import sys, toolkit.config.recipe; print(*({'torch', 'numpy', 'transformers', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({}, "onnx-int8"),
        ({"quant_method": "dynamic"}, "onnx-int8"),
        ({"quant_method": "qat"}, "onnx-int8"),
        ({"quant_method": "fp16"}, "onnx-fp16"),
        ({"quant_method": "fp16", "quant_dtype": "fp16"}, "onnx-fp16"),
        ({"quant_dtype": "int4"}, "onnx-int4"),
        ({"quant_dtype": "uint8"}, "onnx-int8"),
        ({"target": "onnx-fp16", "quant_method": "fp16"}, "onnx-fp16"),
        ({"target": "torch-int8", "quant_method": "dynamic"}, "torch-int8"),
        ({"target": "openvino-int8", "quant_dtype": "int8"}, "openvino-int8"),
    ],
)
def test_quantization_options_select_a_target(given: dict[str, str], target: str, tmp_path: Path) -> None:
    recipe = recipe_from(None, given)
    assert recipe.export.target == target
    write_recipe(recipe, tmp_path / "recipe.toml")
    assert recipe_from(tmp_path / "recipe.toml", {}) == recipe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"target": "onnx-fp32", "quant_method": "static"},
            "--quant-method: static is not available for --target onnx-f",
        ),
        (
            {"target": "torch-int8", "quant_method": "qat"},
            "--quant-method: qat is not available for --target torch-int8",
        ),
        (
            {"quant_method": "fp16", "quant_dtype": "int8"},
            "--quant-dtype: int8 is not available for --target onnx-fp16",
        ),
        ({"target": "onnx-int4", "quant_dtype": "fp16"}, "--quant-dtype: fp16 is not available for --target onnx-int4"),
        ({"max_drop": -0.1}, "--max-drop: -0.1 is outside"),
        ({"quant_method": "magic"}, "'magic' is not one of dynamic, static"),
    ],
)
def test_contradictory_quantization_options_are_rejected(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        recipe_from(None, given)

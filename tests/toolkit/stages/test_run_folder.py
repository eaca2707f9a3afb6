import shutil
from pathlib import Path

import pytest

from tests.helpers import Finished, contents, tiny_recipe
from toolkit.config.recipe import PIPELINES, Recipe
from toolkit.config.settings import Pipeline
from toolkit.stages.run_folder import Run, checkpoint_of, is_run, locate
from toolkit.utils.errors import InputError

RUN, PACKAGE = Path("runs/tiny"), Path("models/tiny-onnx-int8")
STAGES = ["0-floor", "1-baseline", "2-distillation", "4-export-onnx-int8"]


def test_an_opened_run_knows_its_recipe_its_rows_and_its_stages(at_home: Finished) -> None:
    run = Run.open(RUN)
    assert run.recipe == at_home.recipe
    assert run.corpus.fingerprint == run.fingerprint
    assert list(run.results) == STAGES
    assert (run.last_trained, run.last_stage) == ("2-distillation", "2-distillation")
    assert run.stages("4-export") == ["4-export-onnx-int8"]
    assert run.teacher_checkpoint == run.checkpoint("1-baseline")
    assert (run.checkpoint("1-baseline") / "fold.json").is_file()


def test_a_run_a_stage_and_a_package_are_found(at_home: Finished) -> None:
    for path, stage in ((RUN, None), (RUN / "1-baseline", "1-baseline"), (PACKAGE, "4-export-onnx-int8")):
        place = locate(path)
        assert place is not None
        assert (place.run.folder, place.stage) == (RUN, stage)


@pytest.mark.parametrize("path", ["nothing", ".", "runs", "runs/tiny/outputs", "runs/tiny/1-baseline/fold-1"])
def test_other_paths_are_not_located(at_home: Finished, path: str) -> None:
    assert locate(Path(path)) is None
    assert checkpoint_of(Path(path)) == Path(path)


def test_the_checkpoint_of_a_run_is_its_best_fold_else_its_student(copied: Path) -> None:
    best = Run.open(RUN).checkpoint("1-baseline")
    assert checkpoint_of(RUN) == checkpoint_of(RUN / "1-baseline") == best
    assert checkpoint_of(RUN / "2-distillation") == RUN / "2-distillation"
    shutil.rmtree(RUN / "1-baseline")
    assert checkpoint_of(RUN) == RUN / "2-distillation"


def test_a_half_written_stage_is_not_finished(copied: Path) -> None:
    (RUN / "2-distillation").rename(RUN / "2-distillation.partial")
    assert "2-distillation.partial" not in Run.open(RUN).results
    assert Run.open(RUN).last_trained == "1-baseline"


def test_a_run_without_a_finished_stage_reports_how_to_resume(copied: Path) -> None:
    for stage in STAGES:
        shutil.rmtree(RUN / stage)
    with pytest.raises(InputError, match=r"no finished stage; rerun its hbt train command to resume"):
        _ = Run.open(RUN).last_stage


def test_a_folder_without_a_recipe_is_not_a_run_folder(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    with pytest.raises(InputError, match="not a run folder"):
        Run.open(tmp_path)


def test_a_new_run_is_written_only_when_it_begins(copied: Path) -> None:
    before = contents(copied)
    run = Run.of_recipe(tiny_recipe(name="new"))
    assert run.corpus.fingerprint == Run.open(RUN).fingerprint
    assert contents(copied) == before
    run.begin()
    assert Run.open(Path("runs/new")).recipe == run.recipe


def test_a_teacher_replaces_the_baseline_stage_of_a_pipeline() -> None:
    from typing import get_args

    assert set(PIPELINES) == set(get_args(Pipeline))
    recipe = tiny_recipe(pipeline="baseline_kd_quant")
    assert recipe.stages == ("linear_baseline", "baseline", "distillation", "export")
    assert tiny_recipe(teacher=("runs/tiny",)).stages == ("linear_baseline", "distillation", "export")
    assert Recipe().stages == ("linear_baseline", "baseline")

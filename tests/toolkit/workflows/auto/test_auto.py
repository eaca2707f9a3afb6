"""`hbt auto` from the file to the package."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import hbt as hbt_api
from tests.conftest import settle
from tests.helpers import Hbt, contents, write_comments
from toolkit import package
from toolkit.evaluation.standing import Standing
from toolkit.stages.run_folder import Run, locate
from toolkit.utils.errors import InputError
from toolkit.workflows.auto import plan as planning, run as running
from toolkit.workflows.auto.costs import Costs

COMMAND = ("auto", "comments.csv", "--model", "shape:1x32", "--minutes", "9", "--budget-ms", "9", "--yes")
NOT_BETTER = running._not_better
FAST = Costs(linear_s=1.0, train_s=1e-4, predict_s=1e-5, layers=1)


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing should be trained")


def cheap(patch: pytest.MonkeyPatch) -> None:
    """Two folds of two epochs at a fixed rate; nothing is timed."""
    patch.setattr(planning, "linear_costs", lambda corpus: Costs(linear_s=1.0))
    patch.setattr(planning, "with_encoder", lambda costs, *_: FAST)
    patch.setattr(planning, "TEACHERS", ((1.0, 2, False),))
    patch.setattr(planning, "TEACHER_EPOCHS", (6, 6))
    patch.setattr(planning, "STUDENTS", ())
    patch.setattr("toolkit.workflows.auto.run._not_better", lambda run, teacher: "")


@dataclass(frozen=True)
class Made:
    home: Path
    outcome: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Made]:
    """One `hbt auto --json` with a teacher and an n-gram student of it, in the current folder."""
    from toolkit.workflows.auto import command

    home = tmp_path_factory.mktemp("auto")
    write_comments(home / "comments.csv", 240)
    shutil.copy(empty_store, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        settle(home, patch)
        cheap(patch)
        corpus = planning.CorpusSettings(data="comments.csv")
        request = command.request_of(corpus, "shape:1x32", 9, None, None)
        outcome = command.auto(request, 9.0, 5.0, None, lambda doubts: None, False)
        yield Made(home, outcome.__dict__)


def test_the_best_package_within_the_budget_ships_with_three_lines(made: Made) -> None:
    out = Path("models/comments")
    assert made.outcome["package"] == out.as_posix()
    assert package.verify(out).problems == []
    scores = {each["student"]: each["macro_f1"] for each in made.outcome["students"]}
    assert set(scores) == {"ngram", "ngram, labels alone"}
    assert scores[made.outcome["student"]] == max(scores.values())
    speed, accuracy, advice = made.outcome["lines"]
    assert speed == f"{made.outcome['package_mb']:.1f} MB, 1.00 ms, as fast as the linear baseline"
    assert accuracy.startswith(f"macro-F1 {made.outcome['macro_f1']:.3f}, ")
    assert "the linear baseline" in accuracy
    assert advice.startswith('copy models/comments to the device and run python how_to_load.py "text"')


def test_the_copy_that_ships_is_known_as_the_package_of_its_run(made: Made) -> None:
    place = locate(Path("models/comments"))
    assert place is not None and place.stage is not None
    assert place.run.folder.as_posix() == made.outcome["run"]


def test_the_linear_baseline_is_fitted_once_although_the_folds_differ(made: Made) -> None:
    stages = [made.home / "runs" / name / "0-floor" for name in ("comments-labels", "comments-teacher")]
    assert contents(stages[0]) == contents(stages[1])
    assert Run.open(stages[0].parent).recipe.corpus.folds != Run.open(stages[1].parent).recipe.corpus.folds


def test_the_python_function_is_the_verb(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "linear_costs", never)
    same = {"model": "shape:1x32", "minutes": 9, "budget_ms": 9.0}
    assert hbt_api.auto("comments.csv", **same).__dict__ == made.outcome  # type: ignore[arg-type]
    with pytest.raises(InputError, match="different target"):
        hbt_api.auto("comments.csv", **same, target="js")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="modle: no such setting"):
        hbt_api.auto("comments.csv", modle="shape:1x32")


def test_another_target_is_made_of_ngram_students_alone(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "linear_costs", lambda corpus: Costs(linear_s=1.0))
    monkeypatch.setattr(planning, "with_encoder", lambda costs, *_: replace(FAST, layers=4))
    assert hbt("auto", "comments.csv", *COMMAND[2:4], "--target", "python", "--minutes", "600", "--explain-plan") == 0
    plan = capsys.readouterr().out
    assert "# students: ngram (" in plan
    assert [line.count("--target python") for line in plan.splitlines() if line.startswith("hbt ")] == [1, 0, 1]
    assert hbt("auto", "comments.csv", "--target", "python", "--minutes", "0.1", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert json.loads(Path(made["package"], "manifest.json").read_text("utf-8"))["target"] == "python"
    for target, message in (("torch-int8", "use --target onnx-int8"), ("gone", "no such target")):
        assert hbt("auto", "comments.csv", "--target", target) == 2
        assert message in capsys.readouterr().err


def test_the_same_command_trains_nothing_again(
    made: Made, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("cross_validation.fit", "distillation.fit_ngram", "linear_baseline.fit_linear"):
        monkeypatch.setattr(f"toolkit.stages.{place}", never)
    monkeypatch.setattr(planning, "linear_costs", never)
    before = contents(made.home / "models")
    assert hbt(*COMMAND, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(made.outcome))
    assert hbt(*COMMAND) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-3:] == made.outcome["lines"]
    assert contents(made.home / "models") == before
    assert hbt("auto", "comments.csv", "--minutes", "8", "--yes") == 2
    assert "different model, minutes" in capsys.readouterr().err


def test_a_teacher_that_is_not_better_than_the_linear_baseline_is_left_out_with_the_reason(
    made: Made, hbt: Hbt, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(made.home, tmp_path / "home")
    with pytest.MonkeyPatch.context() as patch:
        settle(tmp_path / "home", patch)
        patch.setattr(running, "search_students", never)
        run = Run.open(Path("runs/comments-teacher"))
        worse = replace(run.results["1-baseline"], validation_metrics={"macro_f1": 0.1})
        worse.save(run.folder / "1-baseline")
        patch.setattr(running, "_not_better", NOT_BETTER)
        assert hbt(*COMMAND, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "is not better than the linear baseline: macro-F1 0.1000 against" in found["why"]
    assert found["student"] == "ngram, labels alone"
    assert found["versus_teacher"] is None


def test_force_forgets_the_runs_of_this_name_and_no_others(
    made: Made, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(made.home, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    shutil.copytree("runs/comments-labels", "runs/comments-mine")
    monkeypatch.setattr("toolkit.workflows.auto.command.run_plan", never)
    with pytest.raises(AssertionError, match="nothing should be trained"):
        hbt(*COMMAND, "--force")
    left = sorted(folder.name for folder in Path("runs").iterdir() if folder.is_dir() and folder.name != "cache")
    assert left == ["comments-mine"]
    assert sorted(folder.name for folder in Path("models").iterdir()) == ["comments"]  # until a new one is made


def test_nothing_ships_that_is_worse_than_the_linear_baseline(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Standing, "needs_force", True)
    monkeypatch.setattr(planning, "linear_costs", lambda corpus: Costs(linear_s=1.0))
    assert hbt("auto", "comments.csv", "--minutes", "0.1") == 3
    assert "hbt compress runs/comments-labels --force" in capsys.readouterr().err
    assert not (workplace / "models").exists() or list((workplace / "models").iterdir()) == []


def test_in_doubt_it_asks_only_on_a_terminal(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (workplace / "comments.csv").read_text("utf-8").replace("Comments,HateSpeech", "a,b", 1)
    (workplace / "odd.csv").write_text(text, "utf-8")
    before = contents(workplace)
    assert hbt("auto", "odd.csv", "--minutes", "0.1") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "column 'a' is taken for the texts" in line
    assert line.endswith("give --yes to go on, or the options")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    assert hbt("auto", "odd.csv", "--minutes", "0.1") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("hbt: stopped")
    assert contents(workplace) == before


def test_another_folder_of_that_name_is_not_replaced(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "models" / "comments").mkdir(parents=True)
    assert hbt("auto", "comments.csv", "--minutes", "0.1") == 2
    assert "models/comments: exists" in capsys.readouterr().err
    assert not (workplace / "runs").exists()

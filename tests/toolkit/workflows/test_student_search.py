import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import TINY, Finished, contents, tiny_recipe
from toolkit import package
from toolkit.config.recipe import Recipe
from toolkit.data.corpus import load_corpus
from toolkit.evaluation.metrics import macro_f1
from toolkit.evaluation.predictor import rule_of
from toolkit.modeling.classifier import save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.stages.result import StageResult
from toolkit.stages.run_folder import Run
from toolkit.training.trainer import paused_history
from toolkit.utils.errors import InputError
from toolkit.workflows.pipeline import run_pipeline
from toolkit.workflows.student_search import (
    SEARCHED_STUDENTS,
    StudentResult,
    StudentSearch,
    recipe_of_teacher,
    render,
    search_students,
)

TRIED = ("layers:1", "ngram:10")


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing should be trained")


def latency(kind: str, path: Path, texts: Sequence[str]) -> float:
    return 0.5 if "ngram" in path.as_posix() else 4.0


@dataclass(frozen=True)
class Searched:
    """A search of two students under the finished run, which is their teacher."""

    home: Path
    recipe: Recipe
    found: StudentSearch
    messages: list[str]


@pytest.fixture(scope="module")
def searched(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """A finished search in the current folder, with fake latencies."""
    home = shutil.copytree(
        finished.home, tmp_path_factory.mktemp("search") / "home", ignore=shutil.ignore_patterns("cache")
    )
    (home / "more.txt").write_text("একটি নতুন মন্তব্য\nanother one\n", "utf-8")
    messages: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/search.db")
        for module in ("workflows.run_summary", "export.stage"):
            patch.setattr(f"toolkit.{module}.median_latency_ms", latency)
        patch.setattr("toolkit.stages.teachers.console.say", messages.append)
        recipe = recipe_of_teacher("comments.csv", {"teacher": ("runs/tiny",), "unlabelled": "more.txt", "epochs": 1})
        yield Searched(home, recipe, search_students(recipe, TRIED, None, None), messages)


def test_given_settings_override_those_of_the_teachers_run(at_home: Finished) -> None:
    given = {"teacher": ("runs/tiny", "runs/other"), "epochs": 9, "kd_method": "hidden", "name": "mine", "folds": 4}
    made, tiny = recipe_of_teacher("comments.csv", given), at_home.recipe
    assert made.model == tiny.model
    assert made.corpus.slice == tiny.corpus.slice
    assert made.training.learning_rate == tiny.training.learning_rate
    assert (made.training.epochs, made.corpus.folds, made.run.name) == (9, 4, "mine")
    assert made.distillation.teacher == ("runs/tiny", "runs/other")
    assert made.distillation.kd_method == "hidden"
    assert made.run.pipeline == "baseline_kd_quant"
    assert recipe_of_teacher("comments.csv", {"teacher": ("runs/tiny",)}).run.name is None


def test_a_teacher_that_is_not_a_run_keeps_the_default_settings(workplace: Path) -> None:
    made = recipe_of_teacher("comments.csv", {"teacher": ("some/checkpoint",)})
    assert made.training == Recipe().training
    assert made.corpus.data == "comments.csv"


def test_the_given_data_override_those_of_the_teacher(at_home: Finished) -> None:
    assert recipe_of_teacher("other.csv", {"teacher": ("runs/tiny",)}).corpus.data == "other.csv"


def test_a_search_needs_a_teacher(workplace: Path) -> None:
    with pytest.raises(InputError, match="--teacher: name a run"):
        recipe_of_teacher("comments.csv", {})


def test_each_student_is_a_run_with_a_package(searched: Searched) -> None:
    assert {student.student for student in searched.found.students} == set(TRIED)
    corpus = load_corpus(searched.recipe.corpus)
    rows = corpus.rows("validation")
    for student in searched.found.students:
        name = f"comments-students-{student.student.replace(':', '-')}"
        assert student.package == f"models/{name}-onnx-int8"
        assert package.verify(Path(student.package)).problems == []
        model = package.load(Path(student.package))
        labels = rule_of(model).predict(model.predict_proba(corpus.take(rows)))
        assert student.macro_f1 == pytest.approx(macro_f1(corpus.labels[rows], labels, 2))
        exported = StageResult.load(Path("runs") / name / "4-export-onnx-int8")
        assert student.package_mb == exported.details["package_size_bytes"] / 1e6
        assert (student.parameters, student.p50_ms) == (
            exported.parameters,
            latency("package", Path(student.package), []),
        )
        assert student.within_budget
        distilled = StageResult.load(Path("runs") / name / "2-distillation")
        assert distilled.details["teacher"] == "fold ensemble, out-of-fold on training rows"
        assert not (Path("runs") / name / "1-baseline").exists()


def test_students_without_a_budget_are_sorted_by_macro_f1(searched: Searched) -> None:
    scores = [student.macro_f1 for student in searched.found.students]
    assert scores == sorted(scores, reverse=True)


def test_teacher_logits_are_computed_once_for_all_students(searched: Searched) -> None:
    logits = sorted(file.name for file in (searched.home / "runs" / "cache").iterdir())
    assert len(logits) == 2  # of each fold, for the unlabeled texts
    loaded = [line for line in searched.messages if "loaded from" in line]
    assert sorted(line.rsplit("/", 1)[1] for line in loaded) == logits


def test_teacher_and_linear_baseline_are_references_on_validation_rows(searched: Searched) -> None:
    tiny = Path("runs/tiny")
    assert searched.found.references == {
        "teacher": pytest.approx(StageResult.load(tiny / "1-baseline").validation_metrics["macro_f1"]),
        "linear baseline": pytest.approx(StageResult.load(tiny / "0-floor").validation_metrics["macro_f1"]),
    }


def test_the_table_is_saved_as_json(searched: Searched) -> None:
    saved = json.loads((searched.home / "runs" / "comments-students.json").read_text("utf-8"))
    assert set(saved) == {"rungs", "beside", "left_out"}
    assert {student["student"] for student in saved["rungs"]} == set(TRIED)


def test_a_finished_search_is_not_trained_again_and_is_sorted_by_the_budget(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("stages.cross_validation.fit", "stages.distillation.fit", "stages.distillation.fit_ngram"):
        monkeypatch.setattr(f"toolkit.{place}", never)
    monkeypatch.setattr("toolkit.workflows.halving._costs", lambda builders, *_: dict.fromkeys(builders, (0.0, 0.0)))
    packages = contents(searched.home / "models")

    def order(budget_ms: float | None, budget_mb: float | None) -> list[tuple[str, bool]]:
        found = search_students(searched.recipe, TRIED, budget_ms, budget_mb)
        return [(student.student, student.within_budget) for student in found.students]

    assert order(0.5, None) == [("ngram:10", True), ("layers:1", False)]
    sizes = {student.student: student.package_mb for student in searched.found.students}
    small, large = sorted(sizes, key=sizes.__getitem__)
    assert order(None, sizes[small]) == [(small, True), (large, False)]
    none_within = order(0.1, None)
    assert [fits for _, fits in none_within] == [False, False]
    assert [student for student, _ in none_within] == [student.student for student in searched.found.students]
    assert contents(searched.home / "models") == packages


BUDGETED = ("ngram:10", "layers:2", "layers:1", "shape:1x32", "cascade")
COSTS = {"layers:2": (9.0, 0.1), "layers:1": (1.0, 0.1), "shape:1x32": (0.5, 0.1)}


@pytest.fixture(scope="module")
def budgeted(searched: Searched) -> Iterator[StudentSearch]:
    """A search within a budget that layers:2 exceeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.workflows.halving._costs", lambda builders, *_: {each: COSTS[each] for each in builders})
        patch.setattr("toolkit.training.linear_fit.fit_linear", never)  # that of the teacher's run is used
        recipe = replace(searched.recipe, run=replace(searched.recipe.run, name="budget"))
        recipe = replace(recipe, training=replace(recipe.training, epochs=4))
        yield search_students(recipe, BUDGETED, 4.0, None)


def test_within_a_budget_only_the_best_transformer_is_trained_to_its_end(budgeted: StudentSearch) -> None:
    reasons = {each.student: each.reason for each in budgeted.left_out}
    assert reasons["layers:2"] == "not trained: 9.00 ms, 0.1 MB"
    assert not Path("runs/budget-layers-2").exists()
    (loser,) = set(reasons) - {"layers:2"}
    (winner,) = {"layers:1", "shape:1x32"} - {loser}
    assert {each.student for each in budgeted.students} == {"ngram:10", winner, f"cascade:{winner}"}
    histories = {}
    for student in (loser, winner):
        stage = Path(f"runs/budget-{student.replace(':', '-')}/2-distillation")
        if student == winner:
            histories[student] = StageResult.load(stage).details["history"]
        else:
            assert not stage.exists()
            histories[student] = paused_history(stage.with_name("2-distillation.partial") / "training")
    assert (len(histories[winner]), len(histories[loser])) == (4, 2)
    best = {student: min(epoch["val_loss"] for epoch in history[:2]) for student, history in histories.items()}
    assert best[winner] < best[loser]
    assert reasons[loser].startswith(f"validation loss {best[loser]:.4f} after 2 epochs")


def test_the_winner_is_the_student_that_is_trained_without_a_search(
    searched: Searched, budgeted: StudentSearch
) -> None:
    """Pausing it changes no prediction."""
    winner = next(each.student for each in budgeted.students if each.student in COSTS)
    folder = Path(f"runs/budget-{winner.replace(':', '-')}")
    recipe = Run.open(folder).recipe
    alone = run_pipeline(replace(recipe, run=replace(recipe.run, name="alone", pipeline="baseline_kd")))
    for stage in ("0-floor", "2-distillation"):
        predictions = (alone.folder / stage / "predictions.csv").read_bytes()
        assert predictions == (folder / stage / "predictions.csv").read_bytes()


def test_the_cascade_of_a_search_is_a_package_of_both_students(budgeted: StudentSearch) -> None:
    cascade = next(each for each in budgeted.students if each.student.startswith("cascade:"))
    assert cascade.mean_ms is not None and cascade.package.endswith("-cascade-4ms")
    assert package.verify(Path(cascade.package)).problems == []
    assert type(package.load(Path(cascade.package))).__name__ == "Cascade"


def test_a_budgeted_search_resumes(
    searched: Searched, budgeted: StudentSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("stages.distillation.fit", "stages.distillation.fit_ngram"):
        monkeypatch.setattr(f"toolkit.{place}", never)
    monkeypatch.setattr(
        "toolkit.workflows.halving._costs", lambda builders, *_: {each: COSTS[each] for each in builders}
    )
    recipe = replace(searched.recipe, run=replace(searched.recipe.run, name="budget"))
    recipe = replace(recipe, training=replace(recipe.training, epochs=4))
    assert search_students(recipe, BUDGETED, 4.0, None) == budgeted


def test_if_no_student_is_within_the_budget_the_fastest_is_trained(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "toolkit.workflows.halving._costs", lambda builders, *_: {each: COSTS[each] for each in builders}
    )
    found = search_students(searched.recipe, ("layers:1", "layers:2"), 0.1, None)
    assert [each.student for each in found.students] == ["layers:1"]
    assert not found.students[0].within_budget


def test_a_cascade_needs_a_transformer(searched: Searched) -> None:
    with pytest.raises(InputError, match="--students cascade: has no transformer to take"):
        search_students(searched.recipe, ("ngram", "cascade"), None, None)


def test_an_invalid_student_is_reported_before_the_first_is_trained(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("stages.cross_validation.fit", "stages.distillation.fit", "stages.distillation.fit_ngram"):
        monkeypatch.setattr(f"toolkit.{place}", never)
    before = set(searched.home.rglob("*"))
    with pytest.raises(InputError, match="the teacher has 2 layers; keep 2 or fewer"):
        search_students(searched.recipe, ("ngram:9", "layers:4"), None, None)
    assert set(searched.home.rglob("*")) == before


@pytest.mark.slow
def test_the_vocabulary_of_an_ngram_student_is_not_trimmed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of_teacher("comments.csv", {"teacher": ("teacher",), "folds": 2, "trim_vocabulary": 0, "epochs": 1})
    corpus = load_corpus(recipe.corpus)
    made = build_classifier(TINY, corpus.label_names, [*corpus.texts, *["zebras gallop"] * 9], seed=1)
    save_classifier(made, workplace / "teacher")
    found = search_students(recipe, ("ngram:8", "layers:1"), None, None)
    details = {
        student.student: StageResult.load(
            Path(f"runs/comments-students-{student.student.replace(':', '-')}/4-export-onnx-int8")
        ).details
        for student in found.students
    }
    assert "trimming" in details["layers:1"]
    assert "trimming" not in details["ngram:8"]


def test_the_table_shows_every_student_with_teacher_and_linear_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    students = [
        StudentResult("ngram", 0.81234, 0.2, 1.5, 300_000, True, "models/a"),
        StudentResult("b", 0.9, None, 9.0, 5, False, "models/b"),
    ]
    render(StudentSearch(students, {"teacher": 0.95, "linear baseline": 0.8}))
    page = capsys.readouterr().out
    for shown in (
        "ngram",
        "0.8123",
        "0.200",
        "1.50",
        "yes",
        "no",
        "models/b",
        "–",
        "teacher",
        "0.9500",
        "linear baseline",
    ):
        assert shown in page
    assert "validation rows" in " ".join(page.split())


def test_the_default_students_are_small() -> None:
    assert SEARCHED_STUDENTS == ("ngram", "layers:1", "layers:2", "layers:4", "cascade")


def test_a_student_that_fails_the_quality_gate_is_left_out_and_a_search_without_any_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from toolkit.utils.errors import NothingPasses
    from toolkit.workflows import student_search

    tried: list[str | None] = []

    def refuse(recipe: Any) -> None:
        tried.append(recipe.distillation.student)
        raise NothingPasses("onnx-int8", {"trials": [{}, {}]})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(student_search, "workable_run", lambda *_: None)
    monkeypatch.setattr(student_search, "run_pipeline", refuse)
    with pytest.raises(NothingPasses, match="none of 2 candidates passes"):
        search_students(tiny_recipe(), ["layers:1", "shape:1x32"], None, None)
    assert tried == ["layers:1", "shape:1x32"]
    assert "student layers:1: onnx-int8: none of 2 candidates passes" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()

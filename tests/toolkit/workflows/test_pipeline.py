import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Finished, Hbt, contents, tiny_recipe, write_comments
from toolkit import package
from toolkit.config.recipe import Recipe
from toolkit.config.settings import ExportSettings
from toolkit.config.toml_file import write_recipe
from toolkit.data.corpus import load_corpus
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.standing import Standing
from toolkit.modeling.classifier import load_classifier, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.stages.cross_validation import train_baseline
from toolkit.stages.distillation import distil
from toolkit.stages.linear_baseline import known_settings
from toolkit.stages.result import StageResult
from toolkit.stages.run_folder import run_folder
from toolkit.training.linear_fit import fit_linear
from toolkit.utils.errors import InputError
from toolkit.workflows.compress import compress_run
from toolkit.workflows.pipeline import run_pipeline


def small(**changed: Any) -> Recipe:
    """A recipe for a baseline that trains in about a second."""
    return tiny_recipe(
        **{"pipeline": "baseline", "student": None, "model": "shape:1x32", "epochs": 1, "slice": (), "name": "small"}
        | changed
    )


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing should be trained")


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.stages.cross_validation.fit", never)
    monkeypatch.setattr("toolkit.stages.distillation.fit", never)
    monkeypatch.setattr("toolkit.stages.distillation.fit_ngram", never)


def test_a_finished_pipeline_leaves_no_unfinished_stage(finished: Finished) -> None:
    names = {path.name for path in finished.run.iterdir() if path.is_dir()}
    assert names == {"0-floor", "1-baseline", "2-distillation", "4-export-onnx-int8", "outputs"}
    assert not list(finished.home.rglob("*.partial"))
    assert not list(finished.run.rglob("checkpoint-*"))


def test_a_finished_pipeline_is_not_trained_again(at_home: Finished, no_training: None) -> None:
    status = ("outputs/", "mlflow.json", "tracking.jsonl")
    stages = {name: held for name, held in contents(at_home.run).items() if not name.startswith(status)}
    packaged = contents(at_home.package)
    again = run_pipeline(at_home.recipe)
    assert again == at_home.outcome
    assert {name: held for name, held in contents(at_home.run).items() if name in stages} == stages
    assert contents(at_home.package) == packaged


def test_predictions_on_test_rows_are_saved(at_home: Finished) -> None:
    corpus = load_corpus(at_home.recipe.corpus)
    for stage in ("0-floor", "1-baseline", "2-distillation", "4-export-onnx-int8"):
        result = StageResult.load(at_home.run / stage)
        predictions = Predictions.load(at_home.run / stage / result.predictions)
        assert predictions.of(corpus.rows("test")).shape == (len(corpus.rows("test")), 2)


def test_the_complete_recipe_is_in_the_run(at_home: Finished) -> None:
    from toolkit.config.toml_file import recipe_from

    assert recipe_from(at_home.run / "recipe.toml", {}) == at_home.recipe


def interrupt_in_fold_2(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def interrupted(corpus: Any, model: Any, training: Any, out: Path, watch: Any, to_beat: Any) -> Any:
        def failing_watch(fold: int, epoch: int, metrics: dict[str, float]) -> None:
            watch(fold, epoch, metrics)
            if fold == 1:
                raise error

        return train_baseline(corpus, model, training, out, failing_watch, to_beat)

    monkeypatch.setattr("toolkit.workflows.steps.train_baseline", interrupted)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_interrupted_in_fold_2_is_resumed(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    with monkeypatch.context() as patch, pytest.raises(error):
        interrupt_in_fold_2(patch, error)
        run_pipeline(small())
    folder = workplace / "runs" / "small"
    assert not (folder / "1-baseline").exists()
    weights = folder / "1-baseline.partial" / "fold-1" / "model.safetensors"
    before, written = weights.read_bytes(), weights.stat().st_mtime_ns
    trained: list[str] = []
    monkeypatch.setattr(
        "toolkit.workflows.steps.track_epoch", lambda tracked, child, epoch, metrics: trained.append(child)
    )
    outcome = run_pipeline(small())
    after = folder / "1-baseline" / "fold-1" / "model.safetensors"
    assert (after.read_bytes(), after.stat().st_mtime_ns) == (before, written)
    assert set(trained) == {"fold-2"}
    assert not list(folder.rglob("*.partial"))
    assert outcome.rows[1].stage == "baseline, 2-fold ensemble"


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_in_fold_2(patch, KeyboardInterrupt)
        run_pipeline(small(epochs=2))
    run_pipeline(small(epochs=2))
    run_pipeline(small(epochs=2, name="straight"))
    runs = workplace / "runs"
    for name in ("fold-1/model.safetensors", "fold-2/model.safetensors", "predictions.csv"):
        assert (runs / "small" / "1-baseline" / name).read_bytes() == (
            runs / "straight" / "1-baseline" / name
        ).read_bytes()


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"learning_rate": 2e-3}, "learning_rate"),
        ({"seed": 7}, "seed"),
        ({"pooling": "max", "epochs": 3}, "pooling, epochs"),
        ({"slice": ("kind",)}, "slice"),
        ({"kd_method": "hidden"}, "kd_method"),
        ({"augment": True, "trim_vocabulary": 0}, "augment, trim_vocabulary"),
    ],
)
def test_another_recipe_in_the_same_folder_is_refused_naming_the_differences(
    at_home: Finished, no_training: None, change: dict[str, Any], differing: str
) -> None:
    before = contents(at_home.home)
    with pytest.raises(InputError, match=f"a run with a different {differing}; give another --name"):
        run_pipeline(tiny_recipe(**change))
    assert contents(at_home.home) == before


def test_changed_rows_with_the_same_run_name_are_refused(workplace: Path, no_training: None) -> None:
    folder = workplace / "runs" / "small"
    with pytest.raises(AssertionError, match="nothing should be trained"):
        run_pipeline(small())
    write_comments(workplace / "comments.csv", 250)
    before = contents(folder)
    with pytest.raises(
        InputError, match=r"comments\.csv: not the rows that runs/small was trained on; .* another --name"
    ):
        run_pipeline(small())
    assert contents(folder) == before


@pytest.mark.slow
def test_force_starts_a_new_run(workplace: Path) -> None:
    run_pipeline(small())
    (workplace / "runs" / "small" / "left-over.txt").write_text("x")
    outcome = run_pipeline(small(seed=7), force=True)
    assert not (workplace / "runs" / "small" / "left-over.txt").exists()
    recorded = json.loads((workplace / "runs" / "small" / "corpus.json").read_text("utf-8"))
    assert recorded["settings"]["seed"] == 7
    assert outcome.rows[0].stage == "linear baseline"


@pytest.mark.slow
def test_the_old_run_is_kept_until_the_new_one_is_finished(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_pipeline(small(pipeline="baseline_quant"))
    assert first.package is not None
    old = contents(first.folder)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("toolkit.workflows.pipeline.run_step", interrupted)
        run_pipeline(small(pipeline="baseline_quant", seed=7), force=True)
    assert contents(workplace / "runs" / "small.replaced") == old
    again = run_pipeline(small(pipeline="baseline_quant", seed=7))  # without force, though the old package exists
    assert not (workplace / "runs" / "small.replaced").exists()
    assert again.package == first.package
    assert json.loads((first.package / "manifest.json").read_text("utf-8"))["lineage"]["corpus_settings"]["seed"] == 7


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_a_run_is_not_touched(workplace: Path, no_training: None, force: bool) -> None:
    (workplace / "runs" / "small").mkdir(parents=True)
    (workplace / "runs" / "small" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not a run folder"):
        run_pipeline(small(), force=force)
    assert [path.name for path in (workplace / "runs" / "small").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "manifest", [None, '{"schema": 1, "lineage": {"run": "runs/other"}}', '{"schema": 1, "lin', "{}"]
)
def test_an_existing_package_is_reported_before_training(
    workplace: Path, no_training: None, manifest: str | None
) -> None:
    folder = workplace / "models" / "small-onnx-int8"
    folder.mkdir(parents=True)
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    with pytest.raises(InputError, match=r"models/small-onnx-int8: exists; give another path with -o"):
        run_pipeline(small(pipeline="baseline_quant"))
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("onnx_can", [True, False])
def test_a_taken_folder_of_the_fallback_target_is_reported_before_training(
    workplace: Path, no_training: None, monkeypatch: pytest.MonkeyPatch, onnx_can: bool
) -> None:
    folder = workplace / "models" / "small-torch-int8"
    folder.mkdir(parents=True)
    if not onnx_can:

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("no such operator")

        monkeypatch.setattr("torch.onnx.export", fail)
    message = "nothing should be trained" if onnx_can else r"models/small-torch-int8: exists; give another path with -o"
    with pytest.raises((InputError, AssertionError), match=message):
        run_pipeline(small(pipeline="baseline_quant"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline": "baseline_kd"}, "name the student, such as --student layers:4"),
        ({"pipeline": "baseline_quant", "student": "layers:1"}, "use one with kd, such as baseline_kd_quant"),
        ({"model": "shape:1x31"}, "shape:4x128"),
        ({"model": "nobody/nothing"}, "--model PATH"),
        ({"pipeline": "baseline_kd", "student": "layers:2"}, "the teacher has 1 layers"),
        ({"pipeline": "baseline_kd", "student": "shape:x"}, "--student shape:x"),
        ({"pipeline": "baseline_kd", "student": "layers:1", "teacher": ("no-such-folder",)}, "no-such-folder"),
        (
            {"pipeline": "baseline_kd", "student": "layers:1", "teacher": ("no-such-folder",)},
            "give a folder with --teacher PATH",
        ),
        ({"pipeline": "baseline_kd", "student": "ngram:99"}, "--student ngram:99"),
        ({"pipeline": "baseline_kd", "student": "ngram", "kd_method": "hidden"}, "--kd-method hidden: an ngram"),
        ({"pipeline": "baseline_kd_quant", "student": "ngram", "trim_vocabulary": 0}, "--trim-vocabulary: an ngram"),
        ({"pipeline": "baseline_kd", "student": "layers:1", "unlabelled": "no.txt"}, "--unlabelled no.txt: no such"),
        ({"data": "nothing.csv"}, r"nothing\.csv: no such file"),
        ({"stratify_by": "nothing"}, "--stratify-by"),
        ({"slice": ("nothing",)}, "--slice nothing"),
        ({"folds": 200}, "too few for 200 folds"),
    ],
)
def test_invalid_settings_are_reported_before_anything_is_written(
    workplace: Path, no_training: None, change: dict[str, Any], message: str
) -> None:
    before = contents(workplace)
    with pytest.raises(InputError, match=message) as caught:
        run_pipeline(small(**change))
    assert "\n" not in str(caught.value)
    assert contents(workplace) == before


def test_a_run_as_the_teacher_skips_the_baseline(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.workflows.steps.train_baseline", never)
    monkeypatch.setattr(
        "toolkit.stages.teachers.cached_logits", never
    )  # the fold ensemble has stored logits of these rows
    recipe = tiny_recipe(name="distilled", pipeline="baseline_kd", teacher=("runs/tiny",), epochs=1, slice=())
    outcome = run_pipeline(recipe)
    folder = copied / outcome.folder
    assert not (folder / "1-baseline").exists()
    student = StageResult.load(folder / "2-distillation")
    assert student.details["teacher"] == "fold ensemble, out-of-fold on training rows"
    assert [row.stage for row in outcome.rows] == ["linear baseline", "teacher", "student layers:1"]
    tiny = StageResult.load(Path("runs/tiny/1-baseline"))
    assert outcome.rows[1].metrics == tiny.metrics
    assert [(each.b, each.a) for each in outcome.comparisons] == [
        ("teacher", "linear baseline"),
        ("student", "teacher"),
        ("student", "linear baseline"),
    ]
    assert outcome.comparisons[1].comparison.as_dict() == student.details["versus_teacher"]


def test_a_run_with_another_split_is_used_as_one_checkpoint(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.workflows.steps.train_baseline", never)
    recipe = tiny_recipe(name="other", pipeline="baseline_kd", teacher=("runs/tiny",), epochs=1, slice=(), seed=7)
    outcome = run_pipeline(recipe)
    student = StageResult.load(copied / outcome.folder / "2-distillation")
    assert ("student", "teacher") in [(each.b, each.a) for each in outcome.comparisons]
    assert student.details["teacher"] == "one checkpoint, which may have been trained on any of these rows"


def test_a_checkpoint_can_be_the_teacher(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = load_corpus(small().corpus)
    made = build_classifier(small().model, corpus.label_names, corpus.take(corpus.rows("train")), seed=1)
    save_classifier(made, workplace / "teacher")
    outcome = run_pipeline(small(pipeline="baseline_kd", student="shape:1x32", teacher=("teacher",)))
    assert [row.stage for row in outcome.rows] == ["linear baseline", "teacher", "student shape:1x32"]
    assert not (workplace / outcome.folder / "1-baseline").exists()


def test_the_ensemble_of_the_run_is_not_listed_again_as_teacher(at_home: Finished) -> None:
    assert "teacher" not in [row.stage for row in at_home.outcome.rows]
    pairs = [(each.b, each.a) for each in at_home.outcome.comparisons]
    assert ("student", "fold ensemble") in pairs
    assert not [pair for pair in pairs if "teacher" in pair]


@pytest.mark.slow
def test_the_ensemble_blended_with_the_linear_baseline_is_listed_as_teacher(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[Any] = []

    def fit(corpus: Any, settings: Any = None) -> Any:
        known.append(settings)
        return fit_linear(corpus, settings)

    monkeypatch.setattr("toolkit.stages.teachers.fit_linear", fit)
    outcome = run_pipeline(small(pipeline="baseline_kd", student="ngram:8", blend_floor=True))
    assert known == [known_settings(StageResult.load(outcome.folder / "0-floor"))] != [None]
    stages = [row.stage for row in outcome.rows]
    assert stages == [
        "linear baseline",
        "baseline, 2-fold ensemble",
        "baseline, best fold",
        "teacher",
        "student ngram:8",
    ]
    pairs = {(each.b, each.a) for each in outcome.comparisons}
    assert pairs >= {("fold ensemble", "linear baseline"), ("teacher", "linear baseline"), ("student", "teacher")}
    student = StageResult.load(outcome.folder / "2-distillation")
    teacher = Predictions.load(outcome.folder / "2-distillation" / "teacher.csv")
    baseline = Predictions.load(outcome.folder / "1-baseline" / "predictions.csv")
    share = student.details["floor_share"]
    assert (teacher.logits == baseline.of(teacher.rows)).all() == (share == 0)
    assert "% linear baseline blended in" in student.details["teacher"]


def test_an_ngram_student_is_packaged(workplace: Path) -> None:
    outcome = run_pipeline(small(pipeline="baseline_kd_quant", student="ngram:10", augment=True))
    assert outcome.package is not None
    assert [row.stage for row in outcome.rows][-2:] == ["student ngram:10", "onnx-int8"]
    assert package.verify(outcome.package).problems == []
    model = package.load(outcome.package)
    made = load_classifier(outcome.folder / "2-distillation")
    texts = ["একটি মন্তব্য", "ভালো না, খারাপও না", "a"]
    scaling = package.read_manifest(outcome.package)["evaluation"]["calibration"]["scaling"]
    logits = made.predict_logits(texts) / scaling["temperature"] + [-scaling["shift"] / 2, scaling["shift"] / 2]
    assert abs(model.predict_proba(texts) - softmax(logits)).max() < 0.05
    assert made.rule is not None
    assert [made.labels[i] for i in made.rule.predict(made.predict_proba(texts))] == [
        label for label, _ in model.predict(texts)
    ]
    assert package.read_manifest(outcome.package)["lineage"]["student"] == "ngram:10"


def interrupt_distillation(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> Any:
        def failing_watch(epoch: int, metrics: dict[str, float]) -> None:
            given[-1](epoch, metrics)
            raise KeyboardInterrupt

        return distil(*given[:-1], failing_watch)

    monkeypatch.setattr("toolkit.workflows.steps.distil", interrupted)


@pytest.mark.slow
def test_a_run_resumed_in_its_distillation_equals_an_uninterrupted_one(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"pipeline": "baseline_kd", "student": "layers:1", "kd_epochs": 3, "augment": True}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_distillation(patch)
        run_pipeline(small(**changed))
    runs = workplace / "runs"
    assert not (runs / "small" / "2-distillation").exists()
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.stages.cross_validation.fit", never)
        run_pipeline(small(**changed))
    run_pipeline(small(**changed, name="straight"))
    for name in ("model.safetensors", "predictions.csv", "teacher.csv"):
        resumed, straight = (runs / run / "2-distillation" / name for run in ("small", "straight"))
        assert resumed.read_bytes() == straight.read_bytes(), name


def test_teacher_logits_of_one_run_are_reused_by_the_next(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = load_corpus(small().corpus)
    made = build_classifier(small().model, corpus.label_names, corpus.take(corpus.rows("train")), seed=1)
    save_classifier(made, workplace / "teacher")
    (workplace / "more.txt").write_text("একটি নতুন মন্তব্য\nanother one\n", "utf-8")
    given = {"pipeline": "baseline_kd", "teacher": ("teacher",), "unlabelled": "more.txt"}
    run_pipeline(small(**given, student="ngram:8"))
    assert "loaded from" not in capsys.readouterr().err
    first = contents(workplace / "runs" / "cache")
    assert len(first) == 2  # rows of the corpus, and unlabeled texts
    run_pipeline(small(**given, student="ngram:9", name="second"))
    shown = capsys.readouterr().err
    assert shown.count("logits loaded from runs/cache/logits-") == 2
    assert contents(workplace / "runs" / "cache") == first


@pytest.fixture
def foreign(workplace: Path) -> str:
    """An encoder folder with a different tokenizer."""
    made = build_classifier(small().model, ("a", "b"), ["some other words of another language"] * 9, seed=1)
    save_classifier(made, workplace / "foreign")
    return "foreign"


@pytest.mark.slow
def test_a_student_with_another_tokenizer_is_distilled_from_logits(workplace: Path, foreign: str) -> None:
    outcome = run_pipeline(small(pipeline="baseline_kd", student=foreign))
    made = load_classifier(outcome.folder / "2-distillation")
    assert made.tokenizer.get_vocab() == load_classifier(workplace / foreign).tokenizer.get_vocab()
    assert made.labels == ("non_hate", "hate")


@pytest.mark.parametrize("method", ["hidden", "attention", "multi_level", "relation"])
def test_a_student_with_another_tokenizer_is_refused_for_feature_distillation(
    workplace: Path, foreign: str, no_training: None, method: str
) -> None:
    before = contents(workplace)
    with pytest.raises(InputError, match=rf"--kd-method {method}: .* different tokenizers"):
        run_pipeline(small(pipeline="baseline_kd", student=foreign, kd_method=method))
    assert contents(workplace) == before


def test_a_teacher_with_other_labels_is_reported_before_anything_is_written(workplace: Path, no_training: None) -> None:
    made = build_classifier(small().model, ("calm", "angry"), ["a b c"] * 9, seed=1)
    save_classifier(made, workplace / "teacher")
    before = contents(workplace)
    with pytest.raises(InputError, match=r"its labels are calm, angry, but .* non_hate, hate; .*--label-names"):
        run_pipeline(small(pipeline="baseline_kd", student="layers:1", teacher=("teacher",)))
    assert contents(workplace) == before


def test_a_run_interrupted_after_its_package_was_written_is_resumed(workplace: Path) -> None:
    recipe = small(pipeline="baseline_quant")
    package_folder = run_pipeline(recipe).package
    assert package_folder is not None
    stage = workplace / run_folder(recipe) / "4-export-onnx-int8"
    shutil.rmtree(stage)
    assert run_pipeline(recipe).package == package_folder
    assert (stage / "result.json").is_file()


@pytest.mark.slow
def test_a_package_of_a_deleted_run_is_not_overwritten(workplace: Path) -> None:
    recipe = small(pipeline="baseline_quant")
    run_pipeline(recipe)
    shutil.rmtree(workplace / run_folder(recipe))
    with pytest.raises(InputError, match="exists"):
        run_pipeline(recipe)


@pytest.mark.slow
def test_without_a_student_the_best_fold_is_packaged(workplace: Path) -> None:
    outcome = run_pipeline(small(pipeline="baseline_quant", target="onnx-fp32"))
    assert outcome.package == Path("models/small-onnx-fp32")
    result = StageResult.load(outcome.folder / "1-baseline")
    fold = load_classifier(outcome.folder / "1-baseline" / result.checkpoint)
    model = package.load(outcome.package)
    texts = ["একটি মন্তব্য", "ভালো"]
    assert abs(model.predict_logits(texts) - fold.predict_logits(texts)).max() < 1e-4
    assert model.threshold == fold.threshold
    assert package.verify(outcome.package).problems == []


def test_more_than_two_labels_are_supported(workplace: Path) -> None:
    rows = [f'"{word} number {i}",{word}' for i in range(60) for word in ("sea", "sun", "sky")]
    (workplace / "three.csv").write_text("text,label\n" + "\n".join(rows) + "\n", "utf-8")
    outcome = run_pipeline(small(data="three.csv", pipeline="baseline_quant", target="onnx-fp32", name="three"))
    assert outcome.labels == ("sea", "sky", "sun")
    assert outcome.package is not None
    model = package.load(outcome.package)
    assert model.threshold is None
    assert model.predict_proba(["sea"]).shape == (1, 3)
    assert package.verify(outcome.package).problems == []


@pytest.mark.parametrize(
    ("change", "folder"),
    [
        ({"name": None}, "comments-shape-1x32"),
        ({"name": None, "data": "demo"}, "demo-shape-1x32"),
        ({"name": "মন্তব্য-1"}, "মন্তব্য-1"),
    ],
)
def test_a_run_is_named_after_data_and_model(change: dict[str, Any], folder: str) -> None:
    from toolkit.stages.run_folder import run_folder

    assert run_folder(small(**change)) == Path("runs") / folder


@pytest.mark.slow
def test_a_run_that_is_not_worth_a_package_names_the_command_that_makes_it_anyway(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_training: None
) -> None:
    monkeypatch.setattr(Standing, "needs_force", True)
    shutil.rmtree("runs/tiny/4-export-onnx-int8")
    shutil.rmtree("models")
    write_recipe(tiny_recipe(), Path("again.toml"))
    assert hbt("run", "--recipe", "again.toml", "-o", "models/other") == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("hbt: onnx-int8: the selected candidate is ")
    command = line.rpartition("anyway with ")[2]
    assert command == "hbt compress runs/tiny --max-drop 0.5 -o models/other --force"
    assert not Path("models/other").exists()
    assert Path("runs/tiny/outputs/forms_onnx-int8.csv").is_file()
    assert hbt(*command.split()[1:]) == 0
    shown = capsys.readouterr().out
    assert "student layers:1 (" in shown
    assert shown.splitlines()[-1].startswith("warning: the package is ")
    assert hbt("run", "--recipe", "again.toml", "-o", "models/other") == 0  # resumed: the package is that of this run


def test_without_a_teacher_an_ngram_student_learns_from_the_labels_alone(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("pipeline.build_classifier", "steps.train_baseline"):
        monkeypatch.setattr(f"toolkit.workflows.{place}", never)
    outcome = run_pipeline(small(pipeline="baseline_kd_quant", student="ngram:12", no_teacher=True))
    assert [row.stage for row in outcome.rows] == ["linear baseline", "student ngram:12", "onnx-int8"]
    assert [(each.b, each.a) for each in outcome.comparisons] == [
        ("student", "linear baseline"),
        ("onnx-int8", "student"),
        ("onnx-int8", "linear baseline"),
    ]
    details = StageResult.load(outcome.folder / "2-distillation").details
    assert {candidate["targets"] for candidate in details["candidates"]} == {"labels"}
    assert details["teacher_parameters"] == StageResult.load(outcome.folder / "0-floor").parameters
    assert outcome.package is not None
    assert package.verify(outcome.package).problems == []
    lineage = package.read_manifest(outcome.package)["lineage"]
    assert lineage["teacher"] == "none: the labels alone"
    assert compress_run(outcome.folder, ExportSettings(target="onnx-fp32"), None, force=False).package is not None

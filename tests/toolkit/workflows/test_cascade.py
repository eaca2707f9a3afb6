"""Cascades from a run to the answers of the package, against the two parts run by themselves."""

import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.loaders import compose
from exporters.loaders.base.routing import TRANSFORMER
from exporters.loaders.base.subwords import subwords
from exporters.loaders.cascade import Cascade, load as load_cascade
from exporters.loaders.common import Model
from exporters.loaders.model_bin.arrays import ArrayModel
from exporters.loaders.onnx_runtime.characters import characters, ngram_network
from exporters.loaders.onnx_runtime.transformer import transformer_network
from tests.helpers import Finished, Hbt, rehash
from toolkit import package as packages
from toolkit.config.settings import ExportSettings
from toolkit.config.toml_file import recipe_from, write_recipe
from toolkit.evaluation.predictions import Predictions
from toolkit.export.cascade import describe_cascade
from toolkit.stages.run_folder import CASCADE_NGRAM, Run
from toolkit.utils.errors import InputError
from toolkit.workflows.compress import compress_run
from toolkit.workflows.student_search import recipe_of_teacher, result_of, search_students

STAGE = "4-export-onnx-int8-cascade"
SHARE = 0.4


@pytest.fixture(scope="module")
def made(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run and, in models/cascade, its cascade. Do not change its files."""
    home = tmp_path_factory.mktemp("cascade") / "home"
    shutil.copytree(finished.home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
        for module in ("workflows.run_summary", "export.stage"):
            patch.setattr(f"toolkit.{module}.median_latency_ms", lambda *_: 1.0)
        export = ExportSettings(cascade=True, cascade_share=SHARE, search="off", max_drop=0.5)
        compress_run(finished.outcome.folder, export, Path("models/cascade"), False)
    return home


@pytest.fixture
def package(made: Path, tmp_path: Path) -> Path:
    """A copy of the cascade."""
    return Path(shutil.copytree(made / "models" / "cascade", tmp_path / "package"))


def texts_of(made: Path) -> tuple[Run, np.ndarray, list[str]]:
    run = Run.open(made / "runs" / "tiny")
    run = Run(run.folder, run.recipe, run.fingerprint, run.results, str(made / "comments.csv"))
    rows = np.concatenate([run.corpus.rows("validation"), run.corpus.rows("test")])
    return run, rows, run.corpus.take(rows)


def deferred_by(model: Cascade, texts: list[str]) -> list[bool]:
    """Whether each text is deferred, by the logits of the n-gram model."""
    return [model.routing.defers(row) for row in ArrayModel.scored(model, texts, 1)]


def test_the_package_answers_as_its_two_parts_combined_by_hand(made: Path) -> None:
    folder = made / "models" / "cascade"
    run, rows, texts = texts_of(made)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    routing = config["cascade"]
    ngram = Model(folder, characters, ngram_network(folder / "onnx" / "model.onnx", 1)).predict_logits(texts)
    second = folder / TRANSFORMER
    whole = Model(second, subwords, transformer_network(second / "onnx" / "model.onnx", 1)).predict_logits(texts)
    expected = ngram.copy()
    deferred_texts = 0
    for i, row in enumerate(ngram):
        *_, near, best = sorted(np.float64(row) + routing["offsets"])
        if best - near < routing["margin"]:
            deferred_texts += 1
            expected[i] = routing["ngram_weight"] * row + routing["transformer_weight"] * whole[i]
    assert 0 < deferred_texts < len(texts)
    one_by_one = np.concatenate([load_cascade(folder, 1).predict_logits([text]) for text in texts[:20]])
    np.testing.assert_allclose(one_by_one, expected[:20], atol=1e-5)
    for batch_size in (1, 16):
        np.testing.assert_allclose(load_cascade(folder, 1).predict_logits(texts, batch_size), expected, atol=1e-4)
    stored = Predictions.load(run.folder / STAGE / "predictions.csv")
    np.testing.assert_allclose(stored.of(rows), expected, atol=1e-5)


def test_the_share_on_validation_rows_is_within_the_wanted_one(made: Path) -> None:
    run, rows, texts = texts_of(made)
    validation = len(run.corpus.rows("validation"))
    details = run.results[STAGE].details["cascade"]
    ngram = Predictions.load(run.folder / CASCADE_NGRAM / "predictions.csv").of(rows[:validation])
    assert 0.8 * SHARE <= details["validation"]["share"] <= SHARE
    scores = np.sort(ngram.astype(np.float64) + details["offsets"], axis=1)
    share = (scores[:, -1] - scores[:, -2] < details["margin"]).mean()
    assert share == pytest.approx(details["validation"]["share"], abs=0.05)  # int8 moves a text or two
    deferred = deferred_by(load_cascade(made / "models" / "cascade", 1), texts[validation:])
    assert sum(deferred) == round(details["test"]["share"] * len(deferred))


def test_the_transformer_is_loaded_when_a_text_first_needs_it(made: Path) -> None:
    model = load_cascade(made / "models" / "cascade", 1)
    _, _, texts = texts_of(made)
    deferred = deferred_by(model, texts)
    stays = [text for text, leaves in zip(texts, deferred, strict=True) if not leaves]
    model.predict_logits(stays)
    assert "transformer" not in vars(model.routing)
    model.predict_logits(texts)
    assert "transformer" in vars(model.routing)


@pytest.mark.parametrize("compiler", [True, False])
def test_a_text_that_is_not_deferred_needs_no_runtime(made: Path, package: Path, compiler: bool) -> None:
    _, _, texts = texts_of(made)
    leaves = deferred_by(load_cascade(package, 1), texts)
    stays, deferred = (texts[leaves.index(each)] for each in (False, True))
    script = (
        "import sys\n"
        "for name in ('onnxruntime', 'tokenizers', 'numpy'): sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(package)!r})\n"
        "from how_to_load import load\n"
        f"model = load(compile={None if compiler else False})\n"
        "print(model.predict([sys.argv[1]])[0][0])\n"
        "try: model.predict([sys.argv[2]])\n"
        "except ImportError: print('needs a runtime')\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script, stays, deferred], capture_output=True, text=True)
    assert done.stdout.splitlines() == [load_cascade(package, 1).predict([stays])[0][0], "needs a runtime"], done.stderr


def test_a_missing_runtime_is_one_line_with_the_command_that_installs_it(made: Path, package: Path) -> None:
    _, _, texts = texts_of(made)
    leaves = deferred_by(load_cascade(package, 1), texts)
    hidden = package.parent / "hidden"
    hidden.mkdir()
    (hidden / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')", "utf-8")
    done = subprocess.run(
        [sys.executable, str(package / "how_to_load.py"), texts[leaves.index(True)]],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(hidden)},
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install -r" in done.stderr


def test_hbt_never_runs_the_program_of_the_transformer(package: Path) -> None:
    expected = [entry["label"] for entry in json.loads((package / "manifest.json").read_text("utf-8"))["golden"]]
    (package / TRANSFORMER / "how_to_load.py").write_text("raise SystemExit('run')\n", "utf-8")
    rehash(package)
    golden = [entry["text"] for entry in json.loads((package / "manifest.json").read_text("utf-8"))["golden"]]
    assert [label for label, _ in packages.load(package).predict(golden)] == expected
    with pytest.raises(SystemExit):
        load_cascade(package, 1).predict_logits(golden)


def test_a_planted_bytecode_file_is_not_run(made: Path, package: Path) -> None:
    _, _, texts = texts_of(made)
    program = package / TRANSFORMER / "how_to_load.py"
    planted = package.parent / "how_to_load.py"
    planted.write_text("raise SystemExit('planted')\n", "utf-8")
    shutil.copystat(program, planted)
    cached = Path(importlib.util.cache_from_source(str(program)))
    cached.parent.mkdir()
    py_compile.compile(str(planted), str(cached), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    np.testing.assert_array_equal(
        load_cascade(package, 1).predict_logits(texts), packages.load(package).predict_logits(texts)
    )


def test_how_to_load_alone_gives_the_same_answers(made: Path, package: Path) -> None:
    _, _, texts = texts_of(made)
    code = "import json, sys, how_to_load; print(json.dumps(how_to_load.load().predict(json.load(sys.stdin))))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(package)!r}); {code}"],
        input=json.dumps(texts), capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = load_cascade(package, 1).predict(texts)
    found = json.loads(done.stdout)
    assert [label for label, _ in found] == [label for label, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], atol=1e-5)
    assert packages.verify(package).problems == []


def test_golden_texts_cover_both_parts(package: Path) -> None:
    golden = [entry["text"] for entry in json.loads((package / "manifest.json").read_text("utf-8"))["golden"]]
    assert 0 < sum(deferred_by(load_cascade(package, 1), golden)) < len(golden)


@pytest.mark.parametrize("file", ["onnx/model.onnx", "config.json", "tokenizer.json", "how_to_load.py"])
def test_a_changed_transformer_is_refused_before_it_is_needed(package: Path, file: str) -> None:
    with (package / TRANSFORMER / file).open("ab") as stream:
        stream.write(b" ")
    for load in (load_cascade, packages.load):
        with pytest.raises((ValueError, InputError), match=f"{TRANSFORMER}/{file}"):
            load(package)
    assert packages.verify(package).problems != []


@pytest.mark.parametrize("file", ["onnx/model.onnx", "config.json", "tokenizer.json", "how_to_load.py"])
def test_a_transformer_that_the_manifest_does_not_list_is_refused(package: Path, file: str) -> None:
    manifest = json.loads((package / "manifest.json").read_text("utf-8"))
    del manifest["files"][f"{TRANSFORMER}/{file}"]
    (package / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    for load in (load_cascade, packages.load):
        with pytest.raises((ValueError, InputError), match=f"{TRANSFORMER}/{file} is not in"):
            load(package)


def no_cascade(config: dict[str, Any]) -> None:
    del config["cascade"]


def nan_margin(config: dict[str, Any]) -> None:
    config["cascade"]["margin"] = float("nan")


def one_offset(config: dict[str, Any]) -> None:
    config["cascade"]["offsets"] = [0.0]


def text_as_weight(config: dict[str, Any]) -> None:
    config["cascade"]["ngram_weight"] = "1"


def text_as_offset(config: dict[str, Any]) -> None:
    config["cascade"]["offsets"] = ["x", 1]


@pytest.mark.parametrize("damage", [no_cascade, nan_margin, one_offset, text_as_weight, text_as_offset])
def test_damaged_routing_is_one_line(package: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((package / "config.json").read_text("utf-8"))
    damage(config)
    (package / "config.json").write_text(json.dumps(config), "utf-8")
    rehash(package)
    done = subprocess.run(
        [sys.executable, str(package / "how_to_load.py"), "text"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Traceback" not in done.stderr
    (problem,) = packages.verify(package).problems
    assert "does not load" in problem


def test_the_card_states_share_and_latency_and_has_the_picture(made: Path) -> None:
    folder = made / "models" / "cascade"
    card = (folder / "README.md").read_text("utf-8")
    details = Run.open(made / "runs" / "tiny").results[STAGE].details["cascade"]
    assert f"{100 * details['test']['share']:.0f} % of the test texts are deferred" in card
    assert f"{details['test']['mean_ms']:.3f} ms" in card
    for point in details["curve"]:
        assert f"{point['test']['macro_f1']:.4f}" in card
    assert "![" in card
    assert (folder / "cascade.svg").read_text("utf-8").lstrip().startswith("<?xml")


def test_the_parts_are_compared_with_the_whole(made: Path) -> None:
    versus = Run.open(made / "runs" / "tiny").results[STAGE].details["versus"]
    names = [each["a"] for each in versus]
    assert "n-gram student alone, onnx-int8" in names
    assert "transformer alone, onnx-int8" in names


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--cascade", "--target", "torch-int8"], "--cascade: not for --target torch-int8; use onnx-int8"),
        (["--cascade-share", "0.2"], "--cascade-share: needs --cascade"),
        (["--cascade", "--cascade-share", "1.2"], "--cascade-share: 1.2 is outside [0, 1]"),
        (["--cascade", "--cascade-ms", "0"], "--cascade-ms: 0.0 is not above 0"),
        (["--cascade", "--cascade-ms", "1", "--cascade-share", "0.1"], "give it or --cascade-share, not both"),
    ],
)
def test_wrong_options_are_one_line(
    at_home: Finished, hbt: Hbt, capsys: pytest.CaptureFixture[str], options: list[str], line: str
) -> None:
    assert hbt("compress", "runs/tiny", *options) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_cascade_of_a_missing_folder_is_reported_as_missing(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("compress", "/nope", "--cascade") == 2
    assert capsys.readouterr().err == "hbt: /nope: no such folder; give a run, a checkpoint folder or a hub id\n"


def test_an_ngram_student_has_no_cascade(workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--data", "comments.csv", "--folds", "2", "--pipeline", "baseline_kd_quant", "--no-teacher"]
    assert hbt("run", *common, "--student", "ngram", "--cascade", "--name", "small") == 2
    line = capsys.readouterr().err
    assert "--cascade: --student ngram has no transformer; make a package of --student ngram without a cascade" in line
    assert not Path("runs/small").exists()


@pytest.mark.slow
def test_the_cascade_of_a_checkpoint_is_refused_with_the_command_that_distils_it(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = "runs/tiny/2-distillation"
    assert hbt("compress", checkpoint, "--data", "comments.csv", "--cascade") == 2
    line = capsys.readouterr().err
    advice = (
        line.partition("distill it in one: hbt ")[2].replace("FILE", "comments.csv").replace("layers:2", "layers:1")
    )
    epochs = ["--kd-epochs", "1", "--folds", "2", "--name", "advised", "--max-drop", "0.5", "--search", "off"]
    assert hbt(*advice.split(), *epochs, "-o", "models/advised") == 0
    assert json.loads(Path("models/advised/config.json").read_text("utf-8"))["model_type"] == compose.CASCADE


@pytest.mark.slow
def test_a_search_measures_a_cascade_by_its_mean_latency(copied: Path) -> None:
    given = {"teacher": ("runs/tiny",), "epochs": 1, "name": "found", "search": "off"}
    recipe = recipe_of_teacher("comments.csv", given)
    students = {each.student: each for each in search_students(recipe, ["cascade:layers:1"], None, None).students}
    assert set(students) == {"layers:1", "cascade:layers:1"}  # its transformer, trained once, is a student as well
    student = students["cascade:layers:1"]
    assert student.package == "models/found-layers-1-onnx-int8-cascade"
    assert json.loads((Path(student.package) / "config.json").read_text("utf-8"))["model_type"] == compose.CASCADE
    run = Run.open(Path("runs/found-layers-1"))
    assert student.mean_ms == run.results[STAGE].details["cascade"]["test"]["mean_ms"]
    for budget, within in ((0.99 * student.mean_ms, False), (1.01 * student.mean_ms, True)):  # its p50 here: 1 ms
        assert result_of(student.student, run, Path(student.package), budget, None).within_budget is within


@pytest.mark.parametrize(("given", "student"), [("cascade:layers:1", "layers:1"), ("cascade", "layers:2")])
def test_the_short_form_of_a_cascade(given: str, student: str, tmp_path: Path) -> None:
    recipe = recipe_from(None, {"student": given})
    assert (recipe.distillation.student, recipe.export.cascade) == (student, True)
    write_recipe(recipe, tmp_path / "recipe.toml")
    assert recipe_from(tmp_path / "recipe.toml", {}) == recipe
    (tmp_path / "short.toml").write_text(f'[distillation]\nstudent = "{given}"\n', "utf-8")
    assert recipe_from(tmp_path / "short.toml", {}) == recipe


@pytest.mark.slow
def test_a_finished_cascade_is_not_made_again(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [
        "run",
        "--pipeline",
        "baseline_kd_quant",
        "--teacher",
        "runs/tiny",
        "--data",
        "comments.csv",
        "--name",
        "new",
    ]
    run += ["--student", "cascade:layers:1", "--folds", "2", "--epochs", "1", "--max-drop", "0.5", "--search", "off"]
    assert hbt(*run) == 0
    before = Path("models/new-onnx-int8-cascade/manifest.json").read_bytes()
    monkeypatch.setattr("toolkit.workflows.export_run.compress_cascade", None)
    assert hbt(*run) == 0
    shown = capsys.readouterr().out
    assert "models/new-onnx-int8-cascade" in shown
    assert "the cascade defers" in shown
    assert Path("models/new-onnx-int8-cascade/manifest.json").read_bytes() == before
    with Path("runs/tiny/1-baseline/fold-1/model.safetensors").open("ab") as stream:
        stream.write(b" ")
    assert hbt("compress", "runs/new", "--cascade", "-o", "models/again") == 2  # its n-gram student has this teacher
    assert "--teacher" in capsys.readouterr().err


def test_a_cascade_that_defers_next_to_nothing_is_reported() -> None:
    facts = {"test": {"share": 0.004, "mean_ms": 0.25}, "validation": {"share": 0.01, "mean_ms": 0.3}}
    times = {"ngram_ms": 0.2, "transformer_ms": 5.0}
    few = describe_cascade(facts | times)
    assert few.startswith("the cascade defers 0 % of the test texts to its transformer; mean latency 0.250 ms")
    assert few.endswith("an ngram student alone would be smaller and hardly less accurate")
    facts["validation"]["share"] = 0.03
    assert "alone" not in describe_cascade(facts | times)

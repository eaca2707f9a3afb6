import csv
import dataclasses
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Finished, Hbt, contents
from toolkit import __version__, cli
from toolkit.config.cli_options import field_help
from toolkit.config.grouped_help import Verb
from toolkit.config.recipe import Recipe
from toolkit.config.settings import DistillationSettings, ModelSettings, TrainingSettings
from toolkit.config.toml_file import write_recipe
from toolkit.data.tables import Table, read_table, write_table
from toolkit.utils.errors import InputError

VERBS = ["auto", "data", "train", "run", "students", "compress", "targets", "compare", "predict", "verify", "sign"]
VERBS += ["push", "pull", "bench", "sync", "ui", "runs", "show", "serve", "explain", "drift"]


def process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toolkit.cli", *arguments], cwd=folder, capture_output=True, text=True, encoding="utf-8"
    )


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The single line on stderr, of a command that printed nothing else."""
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("hbt: ")
    return line


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(hbt: Hbt, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert hbt(verb, "--help") == 0
    page = capsys.readouterr().out
    assert page.startswith(f"Usage: hbt {verb}")
    assert (cli.verbs.commands[verb].help or "").split("\n")[0] in " ".join(page.split())


def test_the_help_lists_every_verb(hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(cli.verbs.commands) == set(VERBS)
    assert hbt("--help") == 0
    page = capsys.readouterr().out
    assert all(f"\n  {verb} " in page for verb in VERBS)


@pytest.mark.parametrize("settings", [ModelSettings, TrainingSettings, DistillationSettings])
def test_every_setting_is_an_option_with_its_help_and_default(
    hbt: Hbt, capsys: pytest.CaptureFixture[str], settings: type
) -> None:
    hbt("train", "--help-all")
    page = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(settings):
        assert f"--{field.name.replace('_', '-')}" in page
        assert " ".join(field_help(settings)[field.name].rstrip(".").split()) in page
        if field.default not in (None, True, False, ()):
            assert f"[default: {field.default}]" in page


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_that_parses(hbt: Hbt, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    command = cli.verbs.commands[verb]
    assert isinstance(command, Verb) and command.examples
    hbt(verb, "--help")
    page = capsys.readouterr().out
    for example in command.examples:
        assert f"  {example}\n" in page
        program, name, *words = shlex.split(example)
        assert (program, name) == ("hbt", verb)
        command.make_context(name, words)


def test_help_shows_the_options_that_matter_by_group_and_help_all_the_rest(
    hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    hbt("run", "--help")
    page = capsys.readouterr().out
    titles = ("Run:", "Data:", "Model:", "Training:", "Distillation:", "Pruning:", "Export:", "Options:")
    assert [line for line in page.splitlines() if line in titles] == list(titles)
    shown = [line.split()[0] for line in page.splitlines() if line.startswith("  --")]
    assert len(shown) < 25 and {"--data", "--model", "--student", "--target"} <= set(shown)
    (left,) = re.findall(r"(\d+) more options: hbt run --help-all", page)
    assert hbt("run", "--help-all") == 0
    everything = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  -")]
    assert len(everything) == len([line for line in page.splitlines() if line.startswith("  -")]) + int(left)


def test_hbt_alone_prints_the_help(hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert hbt() == 0
    bare = capsys.readouterr()
    hbt("--help")
    assert (bare.out, bare.err) == (capsys.readouterr().out, "")


def test_the_version_is_printed(hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert hbt("--version") == 0
    assert capsys.readouterr().out == f"hbt, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["predict", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "toolkit.cli", *arguments], capture_output=True, text=True
    )
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "click" in imported
    heavy = {"torch", "numpy", "mlflow", "transformers", "rich", "onnxruntime", "onnx", "sklearn", "tokenizers"}
    assert not imported & heavy
    assert done.stdout.startswith("Usage:")


def rows(count: int = 40, **columns: list[str]) -> str:
    made = {"text": [f"row {i} of words" for i in range(count)], "label": [str(i % 2) for i in range(count)]}
    made |= columns
    return "\n".join([",".join(made), *(",".join(values) for values in zip(*made.values(), strict=True))]) + "\n"


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "no such column": (rows().replace("text,", "words,", 1).encode(), "--text-column"),
    "wrong encoding": (rows().encode().replace(b"row 3 ", b"row \xe9\x00 "), "line 5 is not UTF-8"),
    "broken quotes": (rows().replace("row 3 of words", 'row "3').replace("row 4", '"row" 4').encode(), "line 6"),
    "ragged row": (rows().replace("row 3 of words", "row 3, of words").encode(), "line 5 has 3 fields"),
    "header only": (b"text,label\n", "no rows"),
    "empty": (b"", "no rows"),
    "no labels": (rows().replace("text,label", "text,other", 1).encode(), "--label-column"),
}
UNTRAINABLE: dict[str, tuple[bytes, str]] = {
    "only one label": (rows(label=["1"] * 40).encode(), "only one label"),
    "empty text": (rows().replace("row 3 of words", " ").encode(), "row 3 of column 'text' has an empty text"),
    "NaN label": (rows(label=["0", "1", "nan", "1"] * 10).encode(), "row 2 of column 'label' has no label"),
    "empty label": (rows(label=["0", "1", "0", ""] * 10).encode(), "row 3 of column 'label' has no label"),
    "fewer rows than folds": (rows(label=["0"] * 37 + ["1"] * 3).encode(), "too few for 5 folds"),
    "one label per row": (rows(label=[f"l{i}" for i in range(40)]).encode(), "40 different labels"),
}


@pytest.mark.parametrize("case", [*UNREADABLE, *UNTRAINABLE])
def test_bad_labeled_rows_stop_training_in_one_line(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    content, message = (UNREADABLE | UNTRAINABLE)[case]
    (workplace / "bad.csv").write_bytes(content)
    before = contents(workplace)
    assert hbt("train", "--data", "bad.csv", "--model", "shape:1x32") == 2
    line = one_line(capsys)
    assert "bad.csv" in line
    assert message in line
    assert contents(workplace) == before


@pytest.mark.parametrize("case", UNREADABLE)
def test_an_unreadable_file_is_one_line_of_data(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    content, message = UNREADABLE[case]
    (workplace / "bad.csv").write_bytes(content)
    before = contents(workplace)
    assert hbt("data", "bad.csv") == 2
    assert message in one_line(capsys)
    assert contents(workplace) == before


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_data_shows_what_would_stop_a_run(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    content, message = UNTRAINABLE[case]
    (workplace / "bad.csv").write_bytes(content)
    assert hbt("data", "bad.csv", "--json") == 2
    shown = capsys.readouterr()
    assert message in json.loads(shown.out)["problem"]
    assert shown.err == f"hbt: {json.loads(shown.out)['problem']}\n"


TRAIN_NGRAM = ["train", "--data", "comments.csv", "--model", "shape:1x32", "--student", "ngram"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nothing.csv"], "nothing.csv: no such file"),
        (["train", "--data", "."], "no such file"),
        (["train", "--data", "comments.csv", "--model", "shape:4"], "shape:4x128"),
        (["train", "--data", "comments.csv", "--epochs", "0"], "--epochs"),
        (["train", "--data", "comments.csv", "--epochs", "many"], "--epochs"),
        (["train", "--data", "comments.csv", "--loss", "hinge"], "--loss"),
        (["train", "--data", "comments.csv", "--learning-rate", "fast"], "'fast' is neither a number nor auto"),
        (["train", "--data", "comments.csv", "--name", "../up"], "--name"),
        (["train", "--data", "comments.csv", "--teacher", "runs/x"], "--student"),
        (["train", "--data", "comments.csv", "--unlabelled", "more.txt"], "--unlabelled: needs --student"),
        (["train", "--data", "comments.csv", "--kd-method", "all"], "--kd-method"),
        (["train", "--data", "comments.csv", "--recipe", "no.toml"], "--recipe no.toml: no such file"),
        ([*TRAIN_NGRAM, "--kd-method", "hidden"], "--kd-method hidden: an ngram student has no layers"),
        ([*TRAIN_NGRAM, "--unlabelled", "more.txt"], "--unlabelled more.txt: no such file"),
        ([*TRAIN_NGRAM, "--unlabelled", "empty.txt"], "--unlabelled empty.txt: no text in it"),
        ([*TRAIN_NGRAM, "--unlabelled", "binary.csv"], "--unlabelled binary.csv: line 2 is not UTF-8"),
        ([*TRAIN_NGRAM, "--student", "ngram:two"], "--student ngram:two"),
        (["run", *TRAIN_NGRAM[1:], "--pipeline", "baseline_kd_quant", "--trim-vocabulary"], "--trim-vocabulary"),
        (["students", "comments.csv"], "--teacher: name a run, a checkpoint folder"),
        (["students"], "DATA"),
        (["students", "comments.csv", "--teacher", "a", "--budget-ms", "-1"], "--budget-ms"),
        (["students", "comments.csv", "--teacher", "a", "--student", "ngram"], "--student"),
        (["students", "nothing.csv", "--teacher", "a"], "nothing.csv: no such file"),
        (["compress", "nothing", "--trim-vocabulary", "few"], "--trim-vocabulary"),
        (["train", "--no-such-option"], "--no-such-option"),
        (["run", "--pipeline", "all"], "--pipeline"),
        (["run", "--pipeline", "baseline_kd", "--model", "shape:1x32"], "--student"),
        (["compress", "nothing"], "give labeled rows to evaluate it on with --data FILE"),
        (["compress", "runs/nothing"], "runs/nothing: no such folder; give a run"),
        (["compress", "runs/nothing/1-baseline"], "no such folder; give a run"),
        (["compress"], "SOURCE"),
        (["predict", "nothing", "text"], "nothing: not a package"),
        (["predict", "nothing", "text", ""], "text 2 is blank"),
        (["predict", "nothing"], "give either texts or --input"),
        (["predict", "nothing", "text", "--input", "comments.csv"], "give either texts or --input"),
        (["predict", "nothing", "--input", "comments.csv"], "--output"),
        (["predict", "nothing", "--input", "comments.csv", "--output", "comments.csv"], "exists"),
        (["predict", "nothing", "--input", "comments.csv", "--output", "."], "--output .: is a folder"),
        (["predict", "nothing", "--input", "comments.csv", "--output", ".", "--force"], "--output .: is a folder"),
        (["predict", "nothing", "--input", "comments.csv", "--output", "no/out.csv"], "no folder no"),
        (["train", "--data", "comments.csv", "--seed", "-1"], "--seed: -1 is outside"),
        (["train", "--data", "comments.csv", "--weight-decay", "inf"], "--weight-decay: inf is not a finite number"),
        (["train", "--data", "comments.csv", "--name", "n" * 300], "--name: has 300 bytes"),
        (["train", "--data", "comments.csv", "--name", "cache"], "'cache' is a folder that hbt uses itself"),
        (["train", "--data", "comments.csv", "--name", "cache", "--force"], "'cache' is a folder that hbt uses"),
        (["train", "--data", "comments.csv", "--label-names", f"a,{'b' * 300}"], "--label-names: bbb"),
        (["train", "--data", "longlabel.csv"], "row 1 of column 'label' has a label of 300 characters"),
        (["train", "--data", "digits.csv"], "row 1 of column 'label' has a label of 5000 characters"),
        (["train", "--data", "digits.jsonl"], "digits.jsonl: line 1 is not JSON (Exceeds the limit"),
        (["train", "--data", "deep.jsonl"], "deep.jsonl: line 1 is nested too deep"),
        (["train", "--recipe", "deep.toml"], "--recipe deep.toml: nested too deep"),
        (["train", "--recipe", "digits.toml"], "--recipe digits.toml: not readable as TOML"),
        (["train", "--recipe", "huge.toml"], "--weight-decay: inf is not a finite number"),
        (["compare", "a", "b", "--margin", "nan"], "--margin: nan is outside (0, 1]"),
        (["students", "comments.csv", "--teacher", "a", "--budget-ms", "nan"], "--budget-ms: nan"),
        (["bench", "nothing", "-o", "comments.csv"], "-o comments.csv: is a file"),
        (["bench", "nothing", "-o", "/proc/bench"], "/proc/bench/file: cannot be written in /proc"),
        (["bench", "nothing", "--teacher", "/nope"], "--teacher /nope: not a checkpoint folder"),
        (["bench", "nothing", "--threads", "100000000"], "--threads: 100000000 is outside 1 to 1024"),
        (["verify", "nothing"], "nothing: not a package"),
        (["bench", "nothing"], "nothing: not a package"),
        (["bench"], "PACKAGES"),
        (["ui", "--port", "0"], "--port"),
        (["fly"], "fly"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (workplace / "empty.txt").write_text("\n \n")
    (workplace / "binary.csv").write_bytes(b"text\nta\xefve\x00\n")
    (workplace / "longlabel.csv").write_text(rows(label=["a", "b" * 300] * 20))
    (workplace / "digits.csv").write_text(rows(label=["1", "2" * 5000] * 20))
    (workplace / "digits.jsonl").write_text('{"text": "a", "label": %s}' % ("2" * 5000))
    (workplace / "deep.jsonl").write_text('{"text": "a", "label": %s}' % ("[" * 100_000 + "]" * 100_000))
    (workplace / "deep.toml").write_text(f"a = {'[' * 100_000}{']' * 100_000}")
    (workplace / "digits.toml").write_text(f"[corpus]\nseed = {'2' * 5000}")
    (workplace / "huge.toml").write_text(f"[training]\nweight_decay = {'2' * 400}")
    before = contents(workplace)
    assert hbt(*arguments) == 2
    assert message in one_line(capsys)
    assert contents(workplace) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data", "comments.csv", "--model", "nobody/nothing"],
        ["compress", "nobody/nothing", "--data", "comments.csv"],
        ["data", "comments.csv", "--model", "nobody/nothing"],
    ],
)
def test_an_unreachable_hub_is_one_line_after_the_progress_message(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    before = contents(workplace)
    assert hbt(*arguments) == 2
    progress, line = capsys.readouterr().err.splitlines()
    assert "hub" in progress
    assert line.startswith("hbt: nobody/nothing: cannot be loaded")
    assert line.endswith("as SOURCE" if arguments[0] == "compress" else "give a folder with --model PATH")
    assert contents(workplace) == before


def test_a_mistake_ends_the_process_with_2_and_no_traceback(tmp_path: Path) -> None:
    done = process(tmp_path, "data", "nothing.csv")  # the verb that imports least
    assert done.returncode == 2
    assert done.stdout == ""
    fix = "give the path of a CSV, TSV, JSON Lines, Parquet or Excel file"
    assert done.stderr == f"hbt: nothing.csv: no such file; {fix}\n"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_one_line_with_how_to_resume(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("toolkit.workflows.pipeline.run_pipeline", interrupted)
    assert hbt("train", "--data", "comments.csv") == 130
    assert capsys.readouterr().err.strip() == "hbt: interrupted; rerun the same command to resume"


def test_after_force_an_interrupt_does_not_advise_to_remove_the_run_again(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    small = ("train", "--data", "comments.csv", "--model", "shape:1x32", "--folds", "2", "--name", "small")
    monkeypatch.setattr("toolkit.workflows.pipeline.run_step", interrupted)
    assert hbt(*small, "--force") == 130
    assert (
        capsys.readouterr().err.splitlines()[-1] == "hbt: interrupted; rerun the same command without --force to resume"
    )
    assert hbt(*small) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "hbt: interrupted; rerun the same command to resume"


def test_a_bug_shows_its_traceback(workplace: Path, hbt: Hbt, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("toolkit.workflows.pipeline.run_pipeline", broken)
    with pytest.raises(ZeroDivisionError):
        hbt("train", "--data", "comments.csv")


DEMO_PACKAGE = str(Path(__file__).parents[2] / "models" / "demo-onnx-int8")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_is_utf8_whatever_the_locale(tmp_path: Path, encoding: str) -> None:
    command = [sys.executable, "-m", "toolkit.cli", "predict", DEMO_PACKAGE, "ভালো 🙂", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode("utf-8"))["text"] == "ভালো 🙂"


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are text there")
@pytest.mark.parametrize("arguments", [[DEMO_PACKAGE, b"caf\xe9"], [b"p\xe9", "text"]])
def test_an_argument_that_is_not_utf8_is_one_line(tmp_path: Path, arguments: list[str | bytes]) -> None:
    command = [sys.executable, "-m", "toolkit.cli", "predict", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    (line,) = done.stderr.decode("utf-8").splitlines()
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.match(r"hbt: argument \d \(.*\\udce9\) is not UTF-8", line)


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that would have been run."""
    recipes: list[Recipe] = []

    def record(recipe: Recipe, *_: Any, **__: Any) -> None:
        recipes.append(recipe)
        raise InputError("seen")

    monkeypatch.setattr("toolkit.workflows.pipeline.run_pipeline", record)
    return recipes


def test_options_reach_the_recipe_and_a_recipe_file_is_equivalent(
    workplace: Path, hbt: Hbt, recipes: list[Recipe]
) -> None:
    hbt(
        *("run", "--pipeline", "baseline_kd", "--data", "comments.csv", "--student", "layers:4", "--folds", "3"),
        *("--learning-rate", "1e-4", "--class-weights", "--slice", "0:9", "--slice", "kind", "--label-names"),
        *("no, yes", "--kd-epochs", "7", "--author", "নীলা", "--no-freeze-base"),
    )  # fmt: skip
    (first,) = recipes
    assert (first.run.pipeline, first.run.author, first.corpus.folds) == ("baseline_kd", "নীলা", 3)
    assert (first.corpus.slice, first.corpus.label_names) == (("0:9", "kind"), ("no", "yes"))
    assert (first.training.learning_rate, first.training.class_weights) == (1e-4, True)
    assert (first.distillation.student, first.distillation.kd_epochs) == ("layers:4", 7)
    write_recipe(first, workplace / "recipe.toml")
    hbt("run", "--recipe", "recipe.toml")
    assert recipes[1] == first


def test_the_command_line_wins_over_a_recipe_file(workplace: Path, hbt: Hbt, recipes: list[Recipe]) -> None:
    (workplace / "recipe.toml").write_text("[training]\nepochs = 3\nclass_weights = true\nbatch_size = 8\n", "utf-8")
    hbt("train", "--recipe", "recipe.toml", "--epochs", "9", "--no-class-weights")
    (found,) = recipes
    assert (found.training.epochs, found.training.class_weights, found.training.batch_size) == (9, False, 8)
    write_recipe(found, workplace / "found.toml")
    assert tomllib.loads((workplace / "found.toml").read_text("utf-8"))["training"]["epochs"] == 9


def test_every_distillation_option_reaches_the_recipe(workplace: Path, hbt: Hbt, recipes: list[Recipe]) -> None:
    hbt(
        *("run", "--data", "comments.csv", "--student", "ngram:17", "--teacher", "runs/a", "--teacher", "b"),
        *("--teacher-folds", "best", "--blend-floor", "--unlabelled", "more.txt", "--augment", "--kd-method"),
        *("multi_level", "--hidden-loss-weight", "0.5", "--attention-loss-weight", "0", "--trim-vocabulary", "900"),
    )
    found = recipes[0].distillation
    assert (found.student, found.teacher, found.teacher_folds) == ("ngram:17", ("runs/a", "b"), "best")
    assert (found.blend_floor, found.unlabelled, found.augment) == (True, "more.txt", True)
    assert (found.kd_method, found.hidden_loss_weight, found.attention_loss_weight) == ("multi_level", 0.5, 0.0)
    assert recipes[0].export.trim_vocabulary == 900


def test_an_alias_of_an_option_sets_the_same_setting(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], recipes: list[Recipe]
) -> None:
    for option in ("--unlabelled", "--unlabeled"):
        hbt("train", "--data", "comments.csv", "--student", "ngram", option, "more.txt")
    assert [recipe.distillation.unlabelled for recipe in recipes] == ["more.txt", "more.txt"]
    capsys.readouterr()
    hbt("train", "--help")
    assert "--unlabelled, --unlabeled TEXT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "setting", "value"),
    [
        ("--lr", "learning_rate", 0.5),
        ("--bs", "batch_size", 8),
        ("--max-len", "max_length", 64),
        ("--wd", "weight_decay", 1),
    ],
)
def test_a_name_of_other_tools_works_and_is_not_in_the_help(
    workplace: Path,
    hbt: Hbt,
    capsys: pytest.CaptureFixture[str],
    recipes: list[Recipe],
    typed: str,
    setting: str,
    value: float,
) -> None:
    hbt("train", "--data", "comments.csv", typed, str(value))
    assert recipes[0].flat()[setting] == value
    capsys.readouterr()
    hbt("train", "--help-all")
    page = capsys.readouterr().out
    assert f"{typed} " not in page and f"{typed}," not in page


@pytest.mark.parametrize(("typed", "size"), [([], None), (["--trim-vocabulary"], 0), (["--trim-vocabulary", "7"], 7)])
@pytest.mark.parametrize("after", [[], ["--epochs", "2"]])
def test_the_value_of_trim_vocabulary_is_optional(
    workplace: Path, hbt: Hbt, recipes: list[Recipe], typed: list[str], size: int | None, after: list[str]
) -> None:
    hbt("run", "--data", "comments.csv", *typed, *after)
    assert recipes[0].export.trim_vocabulary == size


@pytest.mark.parametrize(("student", "pipeline"), [(None, "baseline"), ("layers:2", "baseline_kd")])
def test_train_distills_if_there_is_a_student(
    workplace: Path, hbt: Hbt, recipes: list[Recipe], student: str | None, pipeline: str
) -> None:
    hbt("train", "--data", "comments.csv", *(["--student", student] if student else []))
    assert recipes[0].run.pipeline == pipeline


def test_the_defaults_are_those_of_the_issue(workplace: Path, hbt: Hbt, recipes: list[Recipe]) -> None:
    hbt("train", "--data", "comments.csv")
    found = recipes[0].flat()
    expected = {
        "model": "sagorsarker/bangla-bert-base", "batch_size": 32, "learning_rate": 2e-5, "epochs": 15,
        "max_length": 128, "folds": 5, "seed": 42, "dropout": 0.1, "weight_decay": 0.01, "warmup_ratio": 0.1,
        "gradient_clip_norm": 1.0, "early_stopping_patience": 5, "freeze_base": False, "class_weights": False,
        "scheduler": "linear", "loss": "bce", "pooling": "cls", "stratification": "label", "data_fraction": 1.0,
        "device": "auto", "kd_alpha": 0.7, "kd_temperature": 4.0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


@pytest.fixture
def package(finished: Finished) -> str:
    return str(finished.package)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_predict_keeps_rows_columns_and_order(
    package: str, tmp_path: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    texts = ["ভালো", "", None, "খারাপ, না?", *(f"মন্তব্য {i}" for i in range(300))]
    made = {"id": [f"r{i}" for i in range(len(texts))], "text": texts}
    write_table(Table("made", made), tmp_path / f"in{suffix}")
    out = tmp_path / f"out{suffix}"
    assert hbt("predict", package, "--input", str(tmp_path / f"in{suffix}"), "--output", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"rows": len(texts), "output": str(out)}
    found = read_table(out).columns
    assert list(found) == ["id", "text", "predicted_label", "probability", "out_of_scope"]
    assert found["id"] == made["id"]
    empty = [row for row, label in enumerate(found["predicted_label"]) if not label]
    assert empty == [row for row, chance in enumerate(found["probability"]) if chance in (None, "")] == [1, 2]
    assert set(found["predicted_label"]) - {"", None} <= {"hate", "non_hate"}


def test_predict_does_not_overwrite_a_file_unless_forced(package: str, tmp_path: Path, hbt: Hbt) -> None:
    (tmp_path / "in.csv").write_text("text\na\n")
    (tmp_path / "out.csv").write_text("precious")
    arguments = ["predict", package, "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    assert hbt(*arguments) == 2
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert hbt(*arguments, "--force") == 0
    with (tmp_path / "out.csv").open(newline="") as lines:
        assert next(csv.reader(lines)) == ["text", "predicted_label", "probability", "out_of_scope"]


def test_predict_prints_one_line_per_text(package: str, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert hbt("predict", package, "ভালো", "খারাপ\tনা") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split("\t")[2] == "ভালো"
    assert second.endswith("\tখারাপ\tনা")
    assert hbt("predict", package, "ভালো", "--json") == 0
    line = json.loads(capsys.readouterr().out)
    label, probability = first.split("\t")[:2]
    assert line["label"] == label
    assert line["probability"] == pytest.approx(float(probability), abs=5.1e-5)  # each is rounded on its own


def test_verify_reports_what_it_checked(package: str, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert hbt("verify", package) == 0
    assert "10 files unchanged" in capsys.readouterr().out
    assert hbt("verify", package, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["files"], found["problems"]) == (10, [])


def test_verify_of_a_changed_package_fails_in_text_and_in_json(
    package: str, tmp_path: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(package, tmp_path / "changed")
    (folder / "README.md").write_text("x")
    (folder / "extra").write_text("x")
    assert hbt("verify", str(folder)) == 2
    line = one_line(capsys)
    assert "README.md" in line
    assert "extra" in line
    assert hbt("verify", str(folder), "--json") == 2
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert len(found["problems"]) == 2
    assert found["largest_score_gap"] is None


def test_data_as_json_contains_no_text_of_the_file(
    workplace: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(workplace)
    assert hbt("data", "comments.csv", "--json", "--folds", "2") == 0
    page = capsys.readouterr().out
    found = json.loads(page)
    assert found["rows"] == 240
    assert set(found["labels"]) == {"0", "1"} or set(found["labels"]) == {"hate", "non_hate"}
    texts = read_table(workplace / "comments.csv").columns["Comments"]
    assert not any(text in page for text in texts if len(text) > 12)
    assert contents(workplace) == before


def test_compress_of_a_run_rejects_settings_that_the_run_has(
    at_home: Finished, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("compress", "runs/tiny", "--seed", "7", "-o", "models/other") == 2
    assert "--seed: runs/tiny is a run, which defines it" in one_line(capsys)


@pytest.mark.slow
def test_compress_of_a_run_makes_a_package_of_another_target(
    at_home: Finished, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("workflows.run_summary", "export.stage"):
        monkeypatch.setattr(f"toolkit.{module}.median_latency_ms", lambda *_: 1.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run = tmp_path / "tiny"
    shutil.copytree(at_home.run, run)
    assert hbt("compress", str(run), "--target", "onnx-fp32", "-o", str(tmp_path / "full")) == 0
    assert f"next: hbt predict {tmp_path / 'full'}" in capsys.readouterr().out
    assert hbt("verify", str(tmp_path / "full")) == 0
    capsys.readouterr()
    assert hbt("compress", str(run), "--target", "onnx-fp32", "-o", str(tmp_path / "full")) == 2
    assert "exists" in one_line(capsys)


def test_an_invalid_quantization_method_is_one_line(hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    assert hbt("compress", "runs/x", "--quant-method", "magic") == 2
    error = capsys.readouterr().err
    assert "'magic' is not one of 'dynamic', 'static', 'qat', 'fp16', 'int4'" in error
    assert hbt("compress", "runs/x", "--quant-method", "static", "--target", "onnx-fp32") == 2
    assert "static is not available for --target onnx-fp32" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "models/x"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/0"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 5696 vs 5588"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("the measuring worker failed (1):\nOSError: [Errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_one_line(
    hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> None:
        try:
            raise error
        except type(error) as cause:
            raise RuntimeError("cannot be written") from cause

    monkeypatch.setattr("toolkit.export.targets.list_targets", full)
    assert hbt("targets") == 2
    line = one_line(capsys)
    assert line.startswith("hbt: No space left on device")
    assert line.rstrip().endswith("free space and rerun the same command to resume")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_too_little_memory_is_one_line(
    hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing() -> None:
        raise error

    monkeypatch.setattr("toolkit.export.targets.list_targets", failing)
    assert hbt("targets") == 2
    line = one_line(capsys)
    assert line.startswith("hbt: not enough memory")
    assert line.rstrip().endswith("rerun the same command to resume")


def test_any_other_error_of_the_system_is_a_traceback(hbt: Hbt, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("toolkit.export.targets.list_targets", failing)
    with pytest.raises(OSError, match="Input/output"):
        hbt("targets")

"""The advice of a message works: the command that it leads to is accepted."""

import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Hbt
from toolkit.cli import verbs
from toolkit.signature import signature_problems

TRAIN = ("train", "--data", "comments.csv", "--model", "shape:2x32", "--name", "other")
RUN = ("run", *TRAIN[1:])
EXPORT = (*RUN, "--pipeline", "baseline_quant")
AUTO = ("auto", "comments.csv")
NGRAM = (*RUN, "--pipeline", "baseline_kd_quant", "--student", "ngram")
PRUNE = (*RUN, "--pipeline", "baseline_prune")
CASCADE = (*RUN, "--pipeline", "baseline_kd_quant", "--student", "layers:1", "--cascade")
PACKAGE = "models/tiny-onnx-int8"
CHECKPOINT = "runs/tiny/2-distillation"


class Accepted(Exception):
    """All checks of a command have passed, and its work would begin."""


def accept(*_: Any, **__: Any) -> None:
    raise Accepted


ADVICE: list[tuple[tuple[str, ...], str, tuple[str, ...]]] = [
    ((*EXPORT, "-o", PACKAGE), "give another path with -o", (*EXPORT, "-o", "models/new")),
    ((*EXPORT, "-o", PACKAGE), "or overwrite it with --force", (*EXPORT, "-o", PACKAGE, "--force")),
    ((*EXPORT, "-o", "runs", "--force"), "give another path with -o", (*EXPORT, "-o", "models/new")),
    (("compress", "runs/tiny"), "give another path with -o", ("compress", "runs/tiny", "-o", "models/new")),
    (("compress", "runs/tiny"), "overwrite it with --force", ("compress", "runs/tiny", "--force")),
    (("compress", "runs/tiny", "--seed", "3", "-o", "m"), "leave it out", ("compress", "runs/tiny", "-o", "m")),
    (("compress", CHECKPOINT), "with --data FILE", ("compress", CHECKPOINT, "--data", "comments.csv")),
    (("compress", "gone/gone/gone"), "give a run, a checkpoint folder", ("compress", "runs/tiny", "-o", "m")),
    ((*TRAIN[:-1], "tiny"), "give another --name", TRAIN),
    ((*TRAIN[:-1], "tiny"), "or --force to redo it", (*TRAIN[:-1], "tiny", "--force")),
    ((*TRAIN[:-1], "cache"), "give another name", TRAIN),
    ((*RUN, "--pipeline", "baseline_kd"), "--student layers:4",
     (*RUN, "--pipeline", "baseline_kd", "--model", "shape:4x32", "--student", "layers:4")),
    ((*EXPORT, "--student", "layers:1"), "baseline_kd_quant",
     (*EXPORT, "--pipeline", "baseline_kd_quant", "--student", "layers:1")),
    ((*TRAIN, "--teacher", "runs/tiny"), "needs --student",
     (*TRAIN, "--teacher", "runs/tiny", "--student", "layers:1")),
    ((*TRAIN, "--model", "shape:4"), "shape:4x128", (*TRAIN, "--model", "shape:4x128")),
    ((*TRAIN, "--student", "layers:x"), "layers:4", (*TRAIN, "--model", "shape:4x32", "--student", "layers:4")),
    ((*TRAIN, "--student", "ngram:99"), "use ngram, or", (*TRAIN, "--student", "ngram")),
    ((*NGRAM, "--target", "onnx-int4"), "use --target onnx-int8", (*NGRAM, "--target", "onnx-int8")),
    ((*NGRAM, "--target", "torch-int8"), "use --target onnx-int8", (*NGRAM, "--target", "onnx-int8")),
    ((*NGRAM, "--kd-method", "hidden"), "leave it out", NGRAM),
    ((*NGRAM, "--quant-method", "qat"), "leave it out", NGRAM),
    ((*NGRAM, "--trim-vocabulary"), "leave it out", NGRAM),
    ((*NGRAM, "--pipeline", "baseline_kd_prune_quant"), "--pipeline without prune", NGRAM),
    ((*RUN, "--pipeline", "baseline_kd_quant", "--student", "layers:1", "--prune-sparsity", "0.3"),
     "such as baseline_kd_prune_quant",
     (*RUN, "--pipeline", "baseline_kd_prune_quant", "--student", "layers:1", "--prune-sparsity", "0.3")),
    ((*RUN, "--pipeline", "baseline_prune", "--prune-method", "wanda", "--prune-to-mb", "1"),
     "use --prune-method structured",
     (*RUN, "--pipeline", "baseline_prune", "--prune-method", "structured", "--prune-to-mb", "1")),
    ((*TRAIN, "--slice", "9:1"), "give START:STOP", (*TRAIN, "--slice", "1:9")),
    ((*TRAIN, "--slice", "gone"), "a row range such as 0:12000", (*TRAIN, "--slice", "0:12000")),
    ((*TRAIN, "--folds", "150"), "reduce --folds", (*TRAIN, "--folds", "3")),
    ((*TRAIN, "--data", "other.csv"), "name it with --text-column",
     (*TRAIN, "--data", "other.csv", "--text-column", "a", "--label-column", "b")),
    ((*TRAIN, "--data", "other.csv", "--text-column", "a"), "name it with --label-column",
     (*TRAIN, "--data", "other.csv", "--text-column", "a", "--label-column", "b")),
    (("students", "comments.csv", "--name", "other"), "--teacher: name a run",
     ("students", "comments.csv", "--name", "other", "--teacher", "runs/tiny", "--students", "layers:1")),
    (("compare", "runs/tiny", "comments.csv"), "such as runs/NAME/2-distillation",
     ("compare", "runs/tiny", "runs/tiny/2-distillation")),
    (("predict", PACKAGE), "give either texts or --input", ("predict", PACKAGE, "text")),
    (("predict", PACKAGE, "--input", "comments.csv"), "--output",
     ("predict", PACKAGE, "--input", "comments.csv", "--output", "new.csv")),
    (("predict", PACKAGE, "--input", "comments.csv", "--output", "other.csv"), "overwrite it with --force",
     ("predict", PACKAGE, "--input", "comments.csv", "--output", "other.csv", "--force")),
    (("predict", PACKAGE, "--input", "comments.csv", "--output", "out.xlsx"), "give one that ends in .csv",
     ("predict", PACKAGE, "--input", "comments.csv", "--output", "out.csv")),
    (("bench", PACKAGE, "--teacher", "gone"), "give one, or a run", ("bench", PACKAGE, "--teacher", "runs/tiny")),
    (("bench", PACKAGE, "--data", "gone.csv"), "give the path of a CSV", ("bench", PACKAGE, "--data", "comments.csv")),
    ((*TRAIN, "--encoding", "utf-99"), "give one such as utf-8", (*TRAIN, "--encoding", "utf-8")),
    ((*TRAIN, "--separator", "ab"), "is not one character", (*TRAIN, "--separator", ",")),
    ((*TRAIN, "--outer-fold", "0/2"), "give 1/5, for example", (*TRAIN, "--outer-fold", "1/5")),
    ((*TRAIN, "--outer-folds", "2", "--outer-fold", "1/2"), "leave one of them out", (*TRAIN, "--outer-fold", "1/2")),
    ((*TRAIN, "--device", "cuda"), "use --device cpu", (*TRAIN, "--device", "cpu")),
    ((*TRAIN, "--epochs", "0"), "give 1 or more", (*TRAIN, "--epochs", "1")),
    ((*TRAIN, "--batch-size", "0"), "give 1 or more", (*TRAIN, "--batch-size", "1")),
    ((*TRAIN, "--folds", "1"), "give 2 or more", (*TRAIN, "--folds", "2")),
    ((*TRAIN, "--weight-decay", "inf"), "is not a finite number; give one", (*TRAIN, "--weight-decay", "0.1")),
    ((*TRAIN, "--learning-rate", "fast"), "nor auto", (*TRAIN, "--learning-rate", "auto")),
    ((*TRAIN[:-1], "a b"), "use letters, digits, '-', '_' and '.'", (*TRAIN[:-1], "a-b_c.d")),
    ((*TRAIN[:-1], "n" * 300), "give at most 120", (*TRAIN[:-1], "n" * 120)),
    ((*TRAIN, "--label-names", "a"), "are 0, 1", (*TRAIN, "--label-names", "0,1")),
    ((*TRAIN, "--label-names", "1,1"), "give each name once", (*TRAIN, "--label-names", "1,0")),
    ((*TRAIN, "--text-column", "gone"), "the columns are Comments", (*TRAIN, "--text-column", "Comments")),
    ((*TRAIN, "--stratify-by", "gone"), "HateSpeech, kind", (*TRAIN, "--stratify-by", "kind")),
    ((*TRAIN, "--model", "hollow"), "give another model", TRAIN),
    ((*TRAIN, "--data", "Makefile"), "give a file that ends in .csv", TRAIN),
    ((*TRAIN, "--student", "layers:1", "--unlabelled", "gone.txt"), "give a .txt with one text per line",
     (*TRAIN, "--student", "layers:1", "--unlabelled", "texts.txt")),
    ((*TRAIN, "--student", "layers:1", "--no-teacher"), "give --student ngram",
     (*TRAIN, "--student", "ngram", "--no-teacher")),
    ((*NGRAM, "--no-teacher", "--teacher", "runs/tiny"), "leave one of them out", (*NGRAM, "--no-teacher")),
    ((*RUN, "--pipeline", "baseline_kd_quant", "--student", "layers:1", "--target", "c"), "give --student ngram",
     (*NGRAM, "--target", "c")),
    ((*NGRAM, "--budget-kb", "64"), "use c, js, python", (*NGRAM, "--budget-kb", "64", "--target", "js")),
    ((*NGRAM, "--target", "c", "--page"), "use js", (*NGRAM, "--target", "js", "--page")),
    ((*CASCADE, "--cascade-share", "0.2", "--cascade-ms", "1"), "not both", (*CASCADE, "--cascade-ms", "1")),
    ((*CASCADE, "--target", "torch-int8"), "use onnx-int8", (*CASCADE, "--target", "onnx-int8")),
    ((*PRUNE, "--prune-to-ms", "1", "--prune-to-mb", "1"), "not both", (*PRUNE, "--prune-sparsity", "0.5")),
    ((*PRUNE, "--prune-start-epoch", "9"), "give 0 <= start < end",
     (*PRUNE, "--prune-start-epoch", "0", "--prune-end-epoch", "1")),
    (("compress", CHECKPOINT, "--data", "comments.csv", "--max-length", "600", "-o", "m"), "give 32 or less",
     ("compress", CHECKPOINT, "--data", "comments.csv", "--max-length", "32", "-o", "m")),
    (("students", "comments.csv", "--teacher", "runs/tiny", "--name", "other", "--students", "ngram cascade"),
     "such as cascade:layers:2",
     ("students", "comments.csv", "--teacher", "runs/tiny", "--name", "other", "--students", "cascade:layers:2")),
    (("predict", PACKAGE, "text", ""), "leave it out", ("predict", PACKAGE, "text")),
    (("predict", PACKAGE, "--input", "named.csv", "--output", "o.csv"), "'predicted_label'; rename it",
     ("predict", PACKAGE, "--input", "comments.csv", "--output", "o.csv")),
    (("predict", PACKAGE, "--input", "comments.csv", "--output", "runs"), "name a file in it",
     ("predict", PACKAGE, "--input", "comments.csv", "--output", "runs/o.csv")),
    (("predict", PACKAGE, "--input", "comments.csv", "--output", "gone/o.csv"), "or give another --output",
     ("predict", PACKAGE, "--input", "comments.csv", "--output", "o.csv")),
    (("predict", PACKAGE, "--input", "other.csv", "--output", "o.csv"), "name it with --text-column",
     ("predict", PACKAGE, "--input", "other.csv", "--output", "o.csv", "--text-column", "a")),
    (("bench", PACKAGE, "-o", "comments.csv"), "is a file; give a folder", ("bench", PACKAGE, "-o", "figures")),
    (("verify", "runs/tiny"), "make one with hbt compress", ("compress", "runs/tiny", "-o", "m")),
    (("sync", "models"), "create one with hbt train", TRAIN),
    (("auto", "gone.csv"), "give the path of a CSV", AUTO),
    ((*AUTO, "--model", "hollow"), "a hub id or shape:LxH", (*AUTO, "--model", "shape:1x32")),
    ((*AUTO, "--budget-ms", "nan"), "give one above 0", (*AUTO, "--budget-ms", "1")),
    ((*AUTO, "--text-column", "comment"), "did you mean 'Comments'", (*AUTO, "--text-column", "Comments")),
    ((*AUTO, "--target", "torch-int8"), "use --target onnx-int8", (*AUTO, "--target", "onnx-int8")),
    ((*AUTO, "--name", "a b"), "use letters, digits", (*AUTO, "--name", "a-b")),
    ((*AUTO, "--unlabelled", "gone.txt"), "give a .txt with one text per line", (*AUTO, "--unlabelled", "texts.txt")),
    ((*AUTO, "-o", "runs"), "give another path with -o", (*AUTO, "-o", "models/new")),
    (("auto", "other.csv"), "give --yes to go on", ("auto", "other.csv", "--yes")),
    (("auto", "other.csv"), "(--text-column)", ("auto", "other.csv", "--text-column", "a", "--label-column", "b")),
    (("data", "Makefile"), "give a file that ends in .csv", ("data", "comments.csv")),
    (("data", "comments.csv", "--separator", ";;"), "is not one character", ("data", "comments.csv")),
    (("data", "other.csv"), "name it with --text-column",
     ("data", "other.csv", "--text-column", "a", "--label-column", "b")),
    (("show", "gone"), "hbt runs lists them", ("runs",)),
    (("show", "models"), "hbt runs lists them", ("show", PACKAGE)),
    (("runs", "extra"), "unexpected extra argument", ("runs",)),
    (("targets", "extra"), "unexpected extra argument", ("targets",)),
    (("ui", "--port", "0"), "1<=x<=65535", ("ui", "--port", "5001")),
    (("sign", PACKAGE), "--private-key", ("sign", "--help")),
    (("serve", f"a={PACKAGE}", f"a={PACKAGE}"), "NAME=FOLDER", ("serve", f"a={PACKAGE}", f"b={PACKAGE}")),
    (("drift", PACKAGE, "comments.csv", "--text-column", "nope"), "text", ("drift", PACKAGE, "comments.csv")),
    (("explain", PACKAGE), "give texts", ("explain", PACKAGE, "text")),
    (("explain", PACKAGE, "text", "--label", "gone"), "hate", ("explain", PACKAGE, "text", "--label", "hate")),
    (("drift", PACKAGE, "other.csv"), "name it with --text-column",
     ("drift", PACKAGE, "other.csv", "--text-column", "a")),
    (("push", PACKAGE, "https://a/b"), "give a folder, a .zip file", ("push", PACKAGE, "new.zip")),
    (("push", PACKAGE, "hf:owner/name"), "or give a folder or a .zip file", ("push", PACKAGE, "new")),
    (("push", PACKAGE, "gone/new.zip"), "or give another WHERE", ("push", PACKAGE, "new.zip")),
    (("push", PACKAGE, "other.csv"), "give another WHERE", ("push", PACKAGE, "new")),
    (("push", PACKAGE, f"{PACKAGE}/in"), "give another WHERE", ("push", PACKAGE, "models/in")),
    (("push", "runs/tiny", "new.zip"), "make one with hbt compress", ("compress", "runs/tiny", "-o", "m")),
    (("pull", "gone", "new"), "no such folder or .zip file", ("pull", PACKAGE, "new")),
    (("pull", PACKAGE, "runs"), "give another FOLDER", ("pull", PACKAGE, "new")),
    (("pull", PACKAGE, PACKAGE), "overwrite it with --force", ("pull", PACKAGE, PACKAGE, "--force")),
    (("pull", "other.csv", "new"), "pack its folder with hbt push", ("push", PACKAGE, "new.zip")),
]  # fmt: skip


@pytest.fixture
def home(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (copied / "other.csv").write_text("a,b\n" + "".join(f"row {i} of words,{i % 2}\n" for i in range(60)))
    (copied / "texts.txt").write_text("one text\nanother text\n")
    (copied / "named.csv").write_text("text,predicted_label\na,b\n")
    (copied / "Makefile").write_text("all:\n")
    (copied / "hollow").mkdir()
    for work in ("pipeline.run_step", "compress.compress_or_fall_back", "export_run.compress_or_fall_back"):
        monkeypatch.setattr(f"toolkit.workflows.{work}", accept)
    monkeypatch.setattr("benchmarks.bench.bench", accept)
    monkeypatch.setattr("toolkit.workflows.auto.command.make_plan", accept)
    monkeypatch.setattr("toolkit.tracking.mlflow_store.serve", accept)
    monkeypatch.setattr("toolkit.serving.server.serve", accept)
    return copied


@pytest.mark.parametrize(
    ("bad", "advice", "good"),
    [*ADVICE[::2], *(pytest.param(*each, marks=pytest.mark.slow) for each in ADVICE[1::2])],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_the_advice_of_a_message_works(
    home: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], bad: tuple[str, ...], advice: str, good: tuple[str, ...]
) -> None:
    assert hbt(*bad) == 2
    assert advice in capsys.readouterr().err
    with suppress(Accepted):
        assert hbt(*good) == 0, capsys.readouterr().err


def test_there_are_60_wrong_uses_and_every_verb_has_one() -> None:
    assert len({bad for bad, _, _ in ADVICE}) >= 60
    assert {bad[0] for bad, _, _ in ADVICE} == set(verbs.entries)


def test_the_number_of_pieces_that_a_message_names_is_accepted(
    home: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("compress", "runs/tiny", "-o", "models/new", "--trim-vocabulary")
    assert hbt(*command, "1") == 2
    found = re.search(r"use (\d+) or more", capsys.readouterr().err)
    assert found is not None
    with pytest.raises(Accepted):
        hbt(*command, found[1])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_the_commands_for_keys_make_keys_that_sign_and_verify(
    home: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("model_signing", reason="the extra [sign] is not installed")
    for command in (("sign", "--private-key"), ("verify", "--public-key")):
        assert hbt(command[0], PACKAGE, command[1], "comments.csv") == 2
        advised = re.search(r"openssl .*", capsys.readouterr().err)
        assert advised is not None
        subprocess.run(advised[0].split(), check=True, capture_output=True)
    assert hbt("sign", PACKAGE, "--private-key", "KEY.pem") == 0
    assert signature_problems(home / PACKAGE, home / "PUBLIC.pem") == []

"""Bad input to every command: exit code 2, one line on stderr, nothing on stdout, nothing written.

All cases share one folder with a finished run, a package and a checkpoint: none of them may change it.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Finished, Hbt

Arguments = tuple[str, ...]
TRAIN = ("train", "--data", "comments.csv", "--model", "shape:1x32", "--name", "other")
RUN = ("run", *TRAIN[1:])
DISTIL = (*TRAIN, "--student", "layers:1")
PRUNE = (*RUN, "--pipeline", "baseline_prune")
EXPORT = (*RUN, "--pipeline", "baseline_quant")
COMPRESS = ("compress", "runs/tiny", "-o", "models/other")
CHECKPOINT = ("compress", "checkpoint", "--data", "comments.csv", "-o", "models/other")
AUTO = ("auto", "comments.csv", "--minutes", "0.1", "--yes")
STUDENTS = ("students", "comments.csv", "--teacher", "runs/tiny", "--name", "other")
PACKAGE = "models/tiny-onnx-int8"
PREDICT = ("predict", PACKAGE, "--input")

NUMBERS: dict[str, tuple[Arguments, tuple[str, ...]]] = {
    "--folds": (TRAIN, ("0", "1", "-1", "1.5", "x", "", "1000000")),
    "--seed": (TRAIN, ("-1", "4294967296", "x", "1.5")),
    "--data-fraction": (TRAIN, ("0", "-0.5", "1.1", "nan", "inf", "x")),
    "--encoding": (TRAIN, ("utf-99", "base64", "")),
    "--separator": (TRAIN, ("ab", "")),
    "--outer-fold": (TRAIN, ("0/2", "3/2", "1", "a/b")),
    "--outer-folds": (TRAIN, ("0", "1", "-1", "x")),
    "--max-length": (TRAIN, ("0", "3", "-1", "8193", "x")),
    "--dropout": (TRAIN, ("-0.1", "1", "nan", "x")),
    "--epochs": (TRAIN, ("0", "-1", "x", "1e3")),
    "--batch-size": (TRAIN, ("0", "-1", "x")),
    "--learning-rate": (TRAIN, ("0", "1", "-1", "nan", "inf", "x")),
    "--weight-decay": (TRAIN, ("-1", "nan", "inf", "1e999", "x")),
    "--warmup-ratio": (TRAIN, ("-0.1", "1", "nan")),
    "--gradient-clip-norm": (TRAIN, ("0", "-1", "nan", "inf")),
    "--early-stopping-patience": (TRAIN, ("0", "x")),
    "--kd-alpha": (DISTIL, ("-0.1", "1.1", "nan")),
    "--kd-temperature": (DISTIL, ("0", "-1", "nan", "inf")),
    "--kd-epochs": (DISTIL, ("0", "x")),
    "--kd-learning-rate": (DISTIL, ("0", "1", "nan")),
    "--hidden-loss-weight": (DISTIL, ("-1", "nan", "inf")),
    "--attention-loss-weight": (DISTIL, ("-1", "nan")),
    "--prune-sparsity": (PRUNE, ("0", "1", "nan", "x")),
    "--prune-to-ms": (PRUNE, ("0", "-1", "nan", "inf")),
    "--prune-to-mb": (PRUNE, ("0", "-1", "nan")),
    "--prune-steps": (PRUNE, ("0", "x")),
    "--prune-frequency": (PRUNE, ("0",)),
    "--prune-end-epoch": (PRUNE, ("0", "-1")),
    "--prune-start-epoch": (PRUNE, ("-1", "9")),
    "--calib-samples": (PRUNE, ("0", "x")),
    "--fine-tune-epochs": (PRUNE, ("0", "x")),
    "--max-drop": (COMPRESS, ("-0.1", "1.1", "nan", "x")),
    "--trim-vocabulary": (COMPRESS, ("-1", "x")),
    "--budget-ms": (STUDENTS, ("-1", "nan", "x")),
    "--budget-mb": (STUDENTS, ("-1", "nan", "x")),
    "--margin": (("compare", "runs/tiny", PACKAGE), ("0", "-1", "1.1", "nan", "x")),
    "--threads": (("bench", PACKAGE), ("0", "-1", "1025", "x")),
    "--p99-ms": (("bench", PACKAGE, "--scenario", "server"), ("0", "-1", "nan", "inf", "x")),
    "--cpu-target": (("bench", PACKAGE), ("", "gone", "comments.csv")),
    "--port": (("ui",), ("0", "-1", "65536", "x")),
    "--processes": ((*PREDICT, "comments.csv", "--output", "out.csv"), ("0", "-1", "x")),
    "--engine": ((*PREDICT, "comments.csv", "--output", "out"), ("", "dask", "ray:", "spark:/x")),
    "--workers": (("serve", PACKAGE), ("0", "x")),
    "--max-body": (("serve", PACKAGE), ("0", "-1", "x")),
    "--body-seconds": (("serve", PACKAGE), ("0", "-1", "nan", "inf", "x")),
    "--reload-seconds": (("serve", PACKAGE), ("-1", "nan", "inf", "x")),
    "--attribute": (("serve", PACKAGE), ("", "TOXICITY", "=hate", "TOXICITY=")),
}
CHOICES: dict[str, Arguments] = {
    "--stratification": TRAIN,
    "--pooling": TRAIN,
    "--scheduler": TRAIN,
    "--loss": TRAIN,
    "--device": TRAIN,
    "--kd-method": DISTIL,
    "--teacher-folds": DISTIL,
    "--pipeline": RUN,
    "--prune-method": PRUNE,
    "--prune-layers": PRUNE,
    "--prune-schedule": PRUNE,
    "--target": COMPRESS,
    "--quant-method": COMPRESS,
    "--quant-dtype": COMPRESS,
    "--search": COMPRESS,
    "--scenario": ("bench", PACKAGE),
}
NAMES = ("../up", "a/b", "", ".", "..", "a b", "a\x1b[31m", "n" * 300, "cache", "x.partial", "a:b", "a\nb")
TABLES = ("gone.csv", "empty.csv", "header.csv", "ragged.csv", "binary.csv", "nul.csv", "one-label.csv", "no-text.csv",
          "blank.csv", "bad.jsonl", "list.jsonl", "bad.parquet", "table.xlsx", "runs", "fifo.csv")  # fmt: skip
"""Files that no command can learn from."""
NO_TEXTS = tuple(name for name in TABLES if name not in ("one-label.csv", "blank.csv"))
WRONG_PLACES = (
    "",
    " ",
    "hf:",
    "hf:a",
    "hf:a/b/c",
    "hf:a/b@",
    "hf:a b/c",
    "hf:../x",
    "hf:owner/name",
    "https://a/b",
    "hf://a/b",
)
"""No place of a package; and a repository, since HF_HUB_OFFLINE is set."""
NO_RUNS = ("gone", "comments.csv", "models", "hollow", "runs/tiny/gone")
SINGLE: list[Arguments] = [
    ("fly",),
    ("explain", "models/tiny-onnx-int8"),
    ("explain", "models/tiny-onnx-int8", "text", "--label", "gone"),
    ("explain", "models/tiny-onnx-int8", "text", "--html", "gone/page.html"),
    ("explain", "models/tiny-onnx-int8", "--global"),
    ("explain", "models", "text"),
    ("drift", "models", "comments.csv"),
    ("drift", "models/tiny-onnx-int8", "gone.csv"),
    ("drift", "models/tiny-onnx-int8", "comments.csv", "--rows", "0"),
    ("drift", "models/tiny-onnx-int8", "comments.csv", "--text-column", "gone"),
    ("compress", "runs/tiny", "-o", "models/x", "--describe", "gone.toml"),
    ("train", "extra"),
    (*TRAIN, "--no-such-option"),
    (*TRAIN, "--recipe", "gone.toml"),
    *((*TRAIN[:1], "--recipe", f"{name}.toml") for name in ("bad", "unknown", "wrong", "binary")),
    (*TRAIN, "--text-column", "gone"),
    (*TRAIN, "--label-column", "gone"),
    (*TRAIN, "--stratify-by", "gone"),
    (*TRAIN, "--slice", "gone"),
    (*TRAIN, "--slice", "9:1"),
    (*TRAIN, "--slice", "0:0"),
    (*TRAIN, "--slice", "9999999:"),
    (*TRAIN, "--slice", "9" * 5000 + ":"),
    (*TRAIN, "--label-names", "a"),
    (*TRAIN, "--label-names", "a,a"),
    (*TRAIN, "--label-names", "a,b,c"),
    *((*TRAIN, "--model", s) for s in ("shape:", "shape:0x32", "shape:1x0", "shape:1x33", "hollow", "comments.csv")),
    *((*TRAIN, "--student", s) for s in ("layers:0x", "layers:9", "layers:", "shape:x", "ngram:99", "ngram:x", "")),
    (*TRAIN, "--teacher", "runs/tiny"),
    (*DISTIL, "--teacher", "hollow"),
    *((*DISTIL, "--unlabelled", name) for name in ("gone.txt", "empty.csv", "runs", "bad.jsonl")),
    (*RUN, "--pipeline", "baseline_kd"),
    (*PRUNE, "--prune-to-ms", "1", "--prune-to-mb", "1"),
    (*RUN, "--prune-sparsity", "0.3"),
    (*EXPORT, "--target", "onnx-fp16", "--quant-method", "qat"),
    (*EXPORT, "-o", "comments.csv"),
    (*EXPORT, "-o", "/proc/gone"),
    (*EXPORT, "-o", "runs", "--force"),
    (*EXPORT, "-o", ".", "--force"),
    ("run", "--data", "comments.csv", "--name", "tiny"),
    ("train", "--data", "comments.csv", "--name", "strange"),
    ("train", "--data", "comments.csv", "--name", "strange", "--force"),
    ("students",),
    ("students", "comments.csv", "--name", "other"),
    *(("students", "comments.csv", "--teacher", name, "--name", "other") for name in ("hollow", "comments.csv")),
    (*STUDENTS, "--students", "layers:x"),
    (*STUDENTS, "--students", "layers:9 ngram"),
    ("compress",),
    *(("compress", name) for name in NO_RUNS),
    ("compress", "runs/tiny", "--data", "comments.csv"),
    ("compress", "runs/tiny", "-o", "comments.csv"),
    ("compress", "runs/tiny", "-o", "/proc/gone"),
    ("compress", "runs/tiny", "-o", "runs", "--force"),
    ("compress", "runs/tiny"),
    ("compress", "hollow", "--data", "comments.csv", "-o", "models/other"),
    (*CHECKPOINT, "--label-names", "calm,angry"),
    (*CHECKPOINT, "--target", "gone"),
    ("compare",),
    ("compare", "runs/tiny"),
    *(("compare", "runs/tiny", name) for name in NO_RUNS),
    ("sync",),
    *(("sync", name) for name in ("gone", "comments.csv", "hollow", PACKAGE)),
    *(("predict", name, "text") for name in ("gone", "comments.csv", "runs/tiny", "hollow")),
    ("predict", PACKAGE),
    ("predict", PACKAGE, ""),
    ("predict", PACKAGE, "text", " \u200b"),
    ("predict", PACKAGE, "text", "--input", "comments.csv"),
    ("predict", PACKAGE, "--output", "out.csv"),
    (*PREDICT, "comments.csv"),
    *((*PREDICT, "comments.csv", "--output", name) for name in ("runs", "comments.csv", "gone/out.csv", "out.xlsx",
                                                               "out", "/proc/out.csv")),
    (*PREDICT, "comments.csv", "--output", "out.csv", "--text-column", "gone"),
    (*PREDICT, "labeled.csv", "--output", "out.csv"),
    *(("verify", name) for name in ("gone", "comments.csv", "runs/tiny", "hollow")),
    ("verify", PACKAGE, "--public-key", "gone.pem"),
    ("verify", PACKAGE, "--public-key", "comments.csv"),
    ("sign", PACKAGE),
    ("sign", PACKAGE, "--private-key", "gone.pem"),
    ("sign", PACKAGE, "--private-key", "comments.csv"),
    ("sign", "gone", "--private-key", "comments.csv"),
    ("push", PACKAGE),
    *(("push", name, "new.zip") for name in ("gone", "comments.csv", "runs/tiny", "hollow")),
    *(("push", PACKAGE, where) for where in WRONG_PLACES),
    *(("push", PACKAGE, where) for where in ("comments.csv", "runs", "gone/new.zip", "/proc/new", f"{PACKAGE}/in")),
    *(("push", PACKAGE, where, "--force") for where in ("runs", "comments.csv", PACKAGE, ".")),
    ("pull", PACKAGE),
    *(("pull", where, "models/other") for where in WRONG_PLACES),
    *(("pull", where, "models/other") for where in ("gone", "comments.csv", "hollow", "runs/tiny", "fifo.csv")),
    *(("pull", PACKAGE, folder) for folder in ("runs", "comments.csv", "/proc/new", "n" * 300)),
    *(("pull", PACKAGE, folder, "--force") for folder in ("runs", ".")),
    ("pull", PACKAGE, "models/other", "--public-key", "gone.pem"),
    ("bench",),
    *(("bench", name) for name in ("gone", "comments.csv", "runs/tiny", "hollow")),
    ("bench", PACKAGE, "-o", "comments.csv"),
    ("bench", PACKAGE, "--data", "gone.csv"),
    ("bench", PACKAGE, "--data", "labeled.csv"),
    ("bench", PACKAGE, "--teacher", "gone"),
    *(("bench", PACKAGE, "--from", name) for name in ("gone", "comments.csv", "runs/tiny")),
    (*COMPRESS, "--register", "a/b"),
    (*CHECKPOINT, "--register", "name"),
    ("targets", "extra"),
    ("auto",),
    *((*AUTO, option, value) for option in ("--budget-ms", "--budget-mb", "--minutes")
      for value in ("0", "-1", "nan", "inf", "x")),
    *((*AUTO, "--model", m) for m in ("shape:", "shape:1x33", "hollow", "comments.csv", "./gone", "/gone/x", "")),
    *((*AUTO, "--unlabelled", name) for name in ("gone.txt", "empty.csv", "runs")),
    *((*AUTO, "--target", target) for target in ("gone", "torch-int8", "onnx-int4", "")),
    (*AUTO, "--text-column", "gone"),
    (*AUTO, "--label-names", "a,b,c"),
    (*AUTO, "-o", "runs"),
    (*AUTO, "-o", "runs", "--force"),
    (*AUTO, "--explain-plan", "--model", "hollow"),
    ("runs", "extra"),
    ("show",),
    *(("show", name) for name in ("gone", "comments.csv", "hollow", "models")),
]  # fmt: skip


def cases() -> Iterator[Arguments]:
    for option, (command, values) in NUMBERS.items():
        yield from ((*command, option, value) for value in values)
    for option, command in CHOICES.items():
        yield (*command, option, "gone")
        yield (*command, option, "")
    yield from (("train", "--data", "comments.csv", "--model", "shape:1x32", "--name", name) for name in NAMES)
    yield from ((*AUTO, "--name", name) for name in NAMES)
    yield from ((*TRAIN, "--author", name) for name in ("a/b", "", "..", "a" * 300))
    for name in TABLES:
        yield ("train", "--data", name, *TRAIN[3:])
        if name in NO_TEXTS:  # of the others, `hbt data` prints the profile
            yield ("data", name)
        yield ("compress", "checkpoint", "--data", name, "-o", "models/other")
        yield ("auto", name, "--minutes", "0.1", "--yes")
    yield from ((*PREDICT, name, "--output", "out.csv") for name in NO_TEXTS)
    yield from SINGLE


CASES = list(dict.fromkeys(cases()))


@pytest.fixture(scope="module")
def place(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its package, a checkpoint, and bad files."""
    home = tmp_path_factory.mktemp("bad") / "home"
    shutil.copytree(finished.home, home)
    shutil.copytree(home / "runs" / "tiny" / "2-distillation", home / "checkpoint")
    (home / "hollow").mkdir()
    (home / "runs" / "strange").mkdir()
    (home / "runs" / "strange" / "thesis.txt").write_text("mine")
    texts: dict[str, bytes] = {
        "empty.csv": b"",
        "header.csv": b"text,label\n",
        "ragged.csv": b"text,label\na,0\nb,1,2\n",
        "binary.csv": b"text,label\nna\xefve,0\x00\n",
        "nul.csv": b"\x00\x01\x02" * 99,
        "one-label.csv": b"text,label\n" + b"".join(b"row %d,0\n" % i for i in range(40)),
        "no-text.csv": b"number,other\n1,2\n3,4\n",
        "blank.csv": b"text,label\n ,0\n,1\n",
        "labeled.csv": b"text,predicted_label\na,b\n",
        "bad.jsonl": b'{"text": "a"\n',
        "list.jsonl": b"[1, 2]\n",
        "bad.parquet": b"PAR1 no",
        "table.xlsx": b"PK",
        "bad.toml": b"[corpus",
        "unknown.toml": b"[corpus]\ngone = 1\n",
        "wrong.toml": b'[training]\nepochs = "many"\n',
        "binary.toml": b"\xff\xfe",
    }
    for name, held in texts.items():
        (home / name).write_bytes(held)
    os.mkfifo(home / "fifo.csv")
    return home


def listing(home: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder, each file with its size and time of change."""
    found = {path.relative_to(home).as_posix(): path.lstat() for path in home.rglob("*")}
    is_file = {name: stat.S_ISREG(status.st_mode) for name, status in found.items()}
    return {name: (at.st_size, at.st_mtime_ns) if is_file[name] else (0, 0) for name, at in found.items()}


def never(*_: Any, **__: Any) -> None:
    pytest.fail("bad input was accepted")


@pytest.mark.parametrize(
    "arguments", CASES, ids=lambda arguments: " ".join(arguments).encode("unicode_escape")[:90].decode()
)
def test_bad_input_is_one_line_and_writes_nothing(
    place: Path, hbt: Hbt, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: Arguments
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    for accepted in (
        "workflows.pipeline.run_step",
        "workflows.compress.compress_or_fall_back",
        "workflows.export_run.compress_or_fall_back",
        "tracking.mlflow_store.serve",
    ):
        monkeypatch.setattr(f"toolkit.{accepted}", never)
    before = listing(place)
    assert hbt(*arguments) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hbt: ")
    assert printed.err.endswith("\n")
    assert len(printed.err.splitlines()) == 1, printed.err
    assert len(printed.err) < 700
    assert listing(place) == before


def test_there_are_200_bad_inputs_and_every_command_has_some() -> None:
    from toolkit import cli

    assert len(CASES) >= 200
    assert {arguments[0] for arguments in CASES} >= set(cli.verbs.entries) - {"ui"}

"""The suite on two small files: every model has its line, and a second call trains nothing."""

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import suite
from tests.helpers import write_comments
from toolkit.evaluation.metrics import macro_f1
from toolkit.manifest import MANIFEST_FILE
from toolkit.package import load
from toolkit.stages.run_folder import Run
from toolkit.utils.errors import InputError


@pytest.mark.slow
def test_the_suite_measures_each_model_on_each_file(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "SETTINGS", {"pooling": "mean", "folds": 2, "epochs": 1, "max_length": 32})
    monkeypatch.setattr(suite, "STUDENT_SETTINGS", {"kd_epochs": 1, "kd_learning_rate": 1e-3})
    monkeypatch.setattr(suite, "_layers", lambda model: "layers:1")
    write_comments(workplace / "other.csv", 200)
    monkeypatch.setattr("sys.argv", ["suite", "comments.csv=shape:2x32", "other.csv=shape:2x32", "--out", "out/table"])
    suite.main()
    with (workplace / "out" / "table.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    models = ["linear baseline", suite.TEACHER, "ngram", suite.STUDENT, "cascade", "pick on validation rows"]
    shown = [(line["File"], line["Model"].partition(":")[0]) for line in lines]
    assert shown == [(f, m) for f in ("comments", "other") for m in models]
    pick = lines[5]["Model"].partition(": ")[2]
    assert {**lines[5], "Model": pick} == next(line for line in lines if line["Model"] == pick)
    run = Run.open(Path("runs/suite-comments"))
    rows = run.corpus.rows("test")
    for line, package in ((lines[2], "ngram-onnx-int8"), (lines[4], "layers-1-onnx-int8-cascade")):
        model = load(Path("models") / f"suite-comments-{package}")
        predicted = [model.labels.index(label) for label, _ in model.predict(run.corpus.take(rows))]
        expected = macro_f1(run.corpus.labels[rows], np.array(predicted), 2)
        assert line["Macro F1"] == f"{expected:.4f}"
    assert "<svg" in (workplace / "out" / "table.svg").read_text("utf-8")
    before = {file: file.stat().st_mtime_ns for file in Path("models").rglob(MANIFEST_FILE)}
    suite.main()
    assert {file: file.stat().st_mtime_ns for file in Path("models").rglob(MANIFEST_FILE)} == before


def test_an_encoder_without_layers_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no encoder folder"):
        suite._layers(tmp_path)
    for layers, student in ((12, "layers:4"), (6, "layers:3"), (1, "layers:1")):
        (tmp_path / "config.json").write_text(f'{{"num_hidden_layers": {layers}}}', "utf-8")
        assert suite._layers(tmp_path) == student

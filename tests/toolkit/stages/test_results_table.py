import csv
import json
import math
import statistics
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas
import pytest

from tests.helpers import Finished, tiny_recipe
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.standing import Standing
from toolkit.stages.cross_validation import FoldResult
from toolkit.stages.result import StageResult
from toolkit.stages.results_table import Row, cells, render, write_fold_summaries, write_pipeline_summary
from toolkit.utils.files import file_part

SETTINGS = ["Model", "Batch Size", "Learning Rate", "Epochs", "Fold", "Best Epoch"]
VALIDATION = [
    "Val Accuracy", "Val Precision (Hate)", "Val Recall (Hate)", "Val F1 (Hate)", "Val Precision (Non-Hate)",
    "Val Recall (Non-Hate)", "Val F1 (Non-Hate)", "Val Macro F1", "Val ROC-AUC", "Val Loss",
]  # fmt: skip
TRAINING = [
    "Train Accuracy", "Train Precision (Hate)", "Train Recall (Hate)", "Train F1 (Hate)", "Train Precision (Non-Hate)",
    "Train Recall (Non-Hate)", "Train F1 (Non-Hate)", "Train Macro F1", "Train ROC-AUC", "Train Loss",
]  # fmt: skip
COLUMNS = [*SETTINGS, *VALIDATION, "Best Threshold", *TRAINING, "total_parameters", "trainable_parameters"]
STAGES = ["Stage", "Accuracy", "Macro F1", "F1 (Hate)", "F1 (Non-Hate)", "ROC-AUC"]


def read(file: Path) -> pandas.DataFrame:
    return pandas.read_csv(file, keep_default_na=False, na_values=[""])


def the_one(folder: Path, pattern: str) -> Path:
    (file,) = folder.glob(pattern)
    return file


@pytest.fixture
def folds(finished: Finished) -> list[FoldResult]:
    return [FoldResult.load(finished.run / "1-baseline" / f"fold-{k}") for k in (1, 2)]


def test_the_fold_summary_is_named_after_model_batch_and_rate(finished: Finished) -> None:
    for kind in ("fold_summary", "best_metrics"):
        file = the_one(finished.run / "outputs", f"{kind}_*.csv")
        stamp = file.name.removeprefix(f"{kind}_shape-2x32_batch32_lr0.001_").removesuffix(".csv")
        assert len(stamp) == 15
        assert stamp.replace("-", "").isdigit()


def test_the_fold_summary_has_the_agreed_columns_in_order(finished: Finished) -> None:
    file = the_one(finished.run / "outputs", "fold_summary_*.csv")
    assert file.read_text("utf-8").splitlines()[0].split(",") == COLUMNS
    assert list(read(file)["Fold"]) == ["1", "2", "Mean", "Std"]


def test_the_rows_of_the_fold_summary_are_the_folds(finished: Finished, folds: list[FoldResult]) -> None:
    table = read(the_one(finished.run / "outputs", "fold_summary_*.csv"))
    for i, fold in enumerate(folds):
        row = table.iloc[i]
        for split, metrics in (("Val", fold.val), ("Train", fold.train)):
            assert row[f"{split} Precision (Hate)"] == pytest.approx(metrics["precision"])
            assert row[f"{split} Recall (Non-Hate)"] == pytest.approx(metrics["recall_negative"])
            assert row[f"{split} F1 (Hate)"] == pytest.approx(metrics["f1"])
            assert row[f"{split} Loss"] == pytest.approx(metrics["loss"])
        assert row["Best Threshold"] == fold.rule.threshold
        assert (row["Best Epoch"], row["total_parameters"]) == (fold.best_epoch, fold.total_parameters)


def test_mean_and_std_are_those_of_the_folds(finished: Finished) -> None:
    table = read(the_one(finished.run / "outputs", "fold_summary_*.csv"))
    measured = [name for name in COLUMNS if name not in ("Model", "Batch Size", "Learning Rate", "Epochs", "Fold")]
    two = table.iloc[:2][measured].astype(float)
    np.testing.assert_allclose(table.iloc[2][measured].astype(float), two.mean())
    np.testing.assert_allclose(table.iloc[3][measured].astype(float), two.std(ddof=1))
    assert two.std(ddof=1)["Val Loss"] > 0


def test_best_metrics_is_the_row_of_the_best_fold(finished: Finished, folds: list[FoldResult]) -> None:
    summary = the_one(finished.run / "outputs", "fold_summary_*.csv").read_text("utf-8").splitlines()
    best = the_one(finished.run / "outputs", "best_metrics_*.csv").read_text("utf-8").splitlines()
    place = int(np.argmax([fold.val["macro_f1"] for fold in folds]))
    assert best == [summary[0], summary[1 + place]]


def test_the_pipeline_summary_has_every_stage_and_its_metrics(finished: Finished) -> None:
    table = read(finished.run / "outputs" / "pipeline_summary_baseline_kd_quant.csv")
    assert list(table.columns)[: len(STAGES)] == STAGES
    assert {"Size MB", "Parameters", "Latency p50 ms"} <= set(table.columns)
    overall = table[table["Slice"].isna()].set_index("Model")
    assert list(overall["Stage"]) == ["Linear Baseline", "Baseline", "Baseline", "KD Student", "Quantized"]
    assert list(overall.index) == [
        "linear baseline", "baseline, 2-fold ensemble", "baseline, best fold", "student layers:1", "onnx-int8",
    ]  # fmt: skip
    student = StageResult.load(finished.run / "2-distillation")
    row = overall.loc["student layers:1"]
    assert row["F1 (Hate)"] == pytest.approx(student.metrics["f1"], abs=1e-6)
    assert row["F1 (Non-Hate)"] == pytest.approx(student.metrics["f1_negative"], abs=1e-6)
    assert row["Size MB"] == pytest.approx(student.size_bytes / 1e6, abs=1e-3)
    assert row["Parameters"] == student.parameters
    assert (overall.drop("baseline, 2-fold ensemble")["Latency p50 ms"] > 0).all()


def test_the_pipeline_summary_has_a_row_per_slice(finished: Finished) -> None:
    table = read(finished.run / "outputs" / "pipeline_summary_baseline_kd_quant.csv")
    parts = table[table["Slice"] == "rows 0:200"].set_index("Model")
    assert parts.loc["student layers:1", "Stage"] == "KD Student"
    assert len(parts) == 5
    quantized = StageResult.load(finished.run / "4-export-onnx-int8")
    expected = quantized.slices["rows 0:200"]["macro_f1"]
    assert parts.loc["onnx-int8", "Macro F1"] == pytest.approx(expected, abs=1e-6)


def test_summary_json_is_strict_json(finished: Finished) -> None:
    rows = json.loads((finished.run / "summary.json").read_text("utf-8"), parse_constant=pytest.fail)["rows"]
    assert [row["stage"] for row in rows if row["slice"] is None][-1] == "onnx-int8"
    assert all(key.endswith(("_bytes", "_ms")) for row in rows for key in row if "size" in key or "p50" in key)


def fold(number: int, labels: tuple[str, ...], rule: DecisionRule, value: float) -> FoldResult:
    metrics = {"accuracy": value, "macro_f1": value, "roc_auc": value, "loss": value}
    metrics |= {f"{name}_{label}": value for label in labels for name in ("precision", "recall", "f1")}
    return FoldResult(number, 3, rule, metrics, metrics, 100, 90, 1.0, [])


def test_more_than_two_labels_have_one_column_each_and_no_threshold(tmp_path: Path) -> None:
    labels = ("calm", "very_glad", "sad")
    made = [fold(k, labels, None, 0.5 + k / 10) for k in range(3)]
    summary, best = write_fold_summaries(tiny_recipe(model="a/b c"), labels, made, tmp_path, datetime(2026, 1, 2))
    table = read(summary)
    assert "Val F1 (Very-Glad)" in table.columns
    assert table["Best Threshold"].isna().all()
    assert table.iloc[4]["Val Macro F1"] == pytest.approx(statistics.stdev([0.5, 0.6, 0.7]))
    assert read(best)["Fold"].tolist() == [3]
    assert summary.name.startswith("fold_summary_b-c_batch32_lr0.001_")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sagorsarker/bangla-bert-base", "bangla-bert-base"),
        ("../shared/models/me5-small-bn/", "me5-small-bn"),
        ("shape:4x128", "shape-4x128"),
        ("ক খ", "ক-খ"),
        ("..", "model"),
        ("a b/..c..", "c"),
    ],
)
def test_a_model_name_becomes_a_safe_part_of_a_file_name(text: str, part: str) -> None:
    assert file_part(text) == part


def test_a_missing_value_is_an_empty_cell(tmp_path: Path) -> None:
    metrics = {"accuracy": 0.5, "macro_f1": 0.25, "roc_auc": math.nan, "f1_no": 0.5, "f1_yes": 0.0}
    rows = [Row("one, two", metrics), Row("one, two", metrics, 10**6, 5, 1.5, "kind=x, y")]
    write_pipeline_summary(rows, ("no", "yes"), tmp_path / "deep" / "summary.csv")
    with (tmp_path / "deep" / "summary.csv").open(newline="", encoding="utf-8") as lines:
        first, second = list(csv.DictReader(lines))
    assert (first["Model"], first["F1 (Yes)"], first["ROC-AUC"], first["Size MB"]) == ("one, two", "0.0", "", "")
    assert (second["Slice"], second["Size MB"], second["Latency p50 ms"]) == ("kind=x, y", "1.0", "1.5")
    assert cells(rows[1], ("no", "yes"))["Parameters"] == 5


def test_the_printed_table_shows_every_stage_and_slice(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"accuracy": 0.5, "macro_f1": 0.25, "roc_auc": 0.75, "f1_no": 0.5, "f1_yes": 0.125}
    rows = [Row("linear [x]", metrics, 10**6, 1234567, 1.5), Row("linear [x]", metrics, slice="rows 0:9")]
    render(rows, ("no", "yes"), "the title")
    page = capsys.readouterr().out
    for part in ("the title", "linear [x]", "0.2500", "0.1250", "1,234,567", "rows 0:9"):
        assert part in page


def test_what_is_not_better_than_the_linear_baseline_is_red(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    metrics = {"accuracy": 0.7, "macro_f1": 0.7, "f1_a": 0.7, "f1_b": 0.7, "roc_auc": 0.8}
    good = Standing(60, 0.9, (0.8, 1.0), 0.8, (-0.1, 0.2), 0.5)
    below = Standing(60, 0.7, (0.6, 0.8), 0.8, (-0.2, 0.1), 0.5)
    rows = [Row("linear", metrics), Row("good", metrics, standing=good), Row("bad", metrics, standing=below)]
    render(rows, ("a", "b"), "title")
    red = "\x1b[31m"
    lines = {
        line.strip().removeprefix(red).split()[0]: line
        for line in capsys.readouterr().out.splitlines()
        if "0.7" in line
    }
    assert [name for name, line in lines.items() if red in line] == ["bad"]
    assert "bad (below linear baseline)" in lines["bad"]

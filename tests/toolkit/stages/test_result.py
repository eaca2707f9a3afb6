import json
import os
import shutil
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, corpus_from_table
from toolkit.data.tables import Table
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration, softmax
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions, evaluate, rule_on
from toolkit.stages.result import StageResult
from toolkit.utils.files import folder_size, whole_folder


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    table = Table("made.csv", {"text": [f"text {i}" for i in range(200)], "label": [i % 2 for i in range(200)]})
    row = corpus_from_table(table, CorpusSettings(data="made.csv")).rows("train")[0]  # a slice without test rows
    return corpus_from_table(table, CorpusSettings(data="made.csv", slice=("0:100", f"{row}:{row + 1}")))


def logits(rows: int, labels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (rows, labels)).astype(np.float32)


def test_a_result_survives_json(tmp_path: Path) -> None:
    made = StageResult(
        stage="baseline",
        checkpoint="checkpoint",
        metrics={"macro_f1": 0.1 + 0.2},
        validation_metrics={"macro_f1": 1 / 3},
        rule=DecisionRule(),
        parameters=27_700_000,
        size_bytes=1,
        seconds=0.5,
        slices={"kind=plain": {"accuracy": 1.0}},
        details={"নাম": ["ক", None]},
    )
    made.save(tmp_path)
    assert StageResult.load(tmp_path) == made
    assert "নাম" in (tmp_path / "result.json").read_text("utf-8")


def test_saved_predictions_are_bit_identical(corpus: Corpus, tmp_path: Path) -> None:
    values = logits(200)
    values[:4] = [[1e-45, -0.0], [3.4028235e38, 1 / 3], [np.nextafter(np.float32(1), np.float32(2)), 1e-7], [0.1, -1e9]]
    made = Predictions(np.random.default_rng(1).permutation(200), values)
    made.save(tmp_path / PREDICTIONS_FILE, corpus)
    back = Predictions.load(tmp_path / PREDICTIONS_FILE)
    assert back.rows.tolist() == made.rows.tolist()
    assert back.logits.dtype == np.float32
    assert back.logits.tobytes() == values.tobytes()


def test_the_predictions_file_has_the_split_of_each_row(corpus: Corpus, tmp_path: Path) -> None:
    rows = np.concatenate([corpus.rows("test")[:1], corpus.rows("train")[:1], corpus.rows("validation")[:1]])
    Predictions(rows, logits(3)).save(tmp_path / PREDICTIONS_FILE, corpus)
    header, *lines = (tmp_path / PREDICTIONS_FILE).read_text("utf-8").splitlines()
    assert header == "row,split,logit_0,logit_1"
    assert [line.split(",")[:2] for line in lines] == [
        [str(row), name] for row, name in zip(rows, ("test", "train", "validation"), strict=True)
    ]


def test_logits_are_found_by_row_and_not_by_position() -> None:
    made = Predictions(np.array([7, 3, 5]), logits(3))
    assert made.of(np.array([5, 7])).tolist() == made.logits[[2, 0]].tolist()


@pytest.mark.parametrize("row", [4, 8, 100])
def test_a_row_that_was_not_predicted_is_an_error(row: int) -> None:
    with pytest.raises(KeyError, match="without a prediction"):
        Predictions(np.array([7, 3, 5]), logits(3)).of(np.array([3, row]))


def test_the_rule_is_chosen_on_validation_rows_only(corpus: Corpus) -> None:
    rows = np.arange(200)
    first = Predictions(rows, logits(200))
    choice = rule_on(corpus, first)
    changed = first.logits.copy()
    changed[corpus.rows("test")] = logits(200, seed=9)[corpus.rows("test")]
    assert rule_on(corpus, Predictions(rows, changed)) == choice
    assert choice.rows == len(corpus.rows("validation"))


def test_a_given_threshold_is_used_on_every_row(corpus: Corpus) -> None:
    made = Predictions(np.arange(200), logits(200))
    validation, test, slices = evaluate(corpus, made, DecisionRule(0.3))
    assert {validation["best_threshold"], test["best_threshold"], slices["rows 0:100"]["best_threshold"]} == {0.3}


def test_slices_have_test_rows_only_and_empty_ones_are_dropped(corpus: Corpus) -> None:
    made = Predictions(np.arange(200), logits(200))
    _, test, slices = evaluate(corpus, made, DecisionRule(0.4))
    rows = corpus.rows("test")
    first = rows[rows < 100]
    expected = calculate_metrics_with_threshold_exploration(
        corpus.labels[first], softmax(made.logits[first]), test["best_threshold"], corpus.label_names
    )
    assert slices == {"rows 0:100": expected}


def test_an_interrupted_stage_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "1-baseline") as folder:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt
    assert not (tmp_path / "1-baseline").exists()


def test_a_resumed_stage_finds_its_finished_parts(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "runs" / "stage") as folder:
        (folder / "fold-0").write_text("done")
        raise RuntimeError
    with whole_folder(tmp_path / "runs" / "stage") as folder:
        assert (folder / "fold-0").read_text() == "done"
        (folder / "fold-1").write_text("done")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["stage"]
    assert sorted(path.name for path in (tmp_path / "runs" / "stage").iterdir()) == ["fold-0", "fold-1"]


def test_an_old_folder_is_kept_until_the_new_one_is_complete(tmp_path: Path) -> None:
    old = tmp_path / "stage"
    old.mkdir()
    (old / "old").write_text("x")
    with pytest.raises(RuntimeError), whole_folder(old) as folder:
        (folder / "new").write_text("y")
        raise RuntimeError
    assert [path.name for path in old.iterdir()] == ["old"]
    with whole_folder(old):
        pass
    assert [path.name for path in old.iterdir()] == ["new"]


@pytest.mark.parametrize(("umask", "folders", "files"), [(0o022, 0o755, 0o644), (0o007, 0o770, 0o660)])
def test_a_folder_has_the_modes_of_the_umask(tmp_path: Path, umask: int, folders: int, files: int) -> None:
    before = os.umask(umask)
    try:
        with whole_folder(tmp_path / "package") as folder:
            copied = Path(tempfile.mkdtemp(dir=tmp_path))
            (copied / "deep").mkdir(0o700)
            (copied / "deep" / "model.onnx").touch(0o600)
            shutil.copytree(copied, folder, dirs_exist_ok=True)
    finally:
        os.umask(before)
    found = tmp_path / "package"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (found, found / "deep", found / "deep" / "model.onnx")]
    assert modes == [folders, folders, files]


def test_the_size_of_a_folder_counts_the_folders_in_it(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(json.dumps([]).encode())
    assert folder_size(tmp_path) == 7

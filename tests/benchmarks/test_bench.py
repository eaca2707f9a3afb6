import copy
import json
import math
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench import (
    LINEAR_BASELINE_NAME,
    TEACHER,
    Conditions,
    Output,
    bench_packages,
    corpus_of,
    subjects_of,
)
from tests.benchmarks.test_device import RECORD
from tests.helpers import Finished
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.latency.limits import CpuTarget
from toolkit.latency.measure import Measurement, Subject
from toolkit.latency.scenarios import Scenario
from toolkit.manifest import MANIFEST_FILE, sha256_of
from toolkit.utils.errors import InputError


def test_the_test_rows_of_a_package_are_restored(at_home: Finished) -> None:
    expected = load_corpus(at_home.recipe.corpus)
    found = corpus_of(at_home.package, None)
    np.testing.assert_array_equal(found.fold, expected.fold)
    assert found.fingerprint == expected.fingerprint
    assert found.slices.keys() == {"rows 0:200"}


def test_the_data_file_may_have_moved(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = json.loads((copied / "runs/tiny/corpus.json").read_text("utf-8"))["fingerprint"]
    package = copied / "models" / "tiny-onnx-int8"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert corpus_of(package, None).fingerprint == fingerprint  # found beside the package
    (copied / "comments.csv").rename(tmp_path / "moved.csv")
    with pytest.raises(InputError, match=r"comments\.csv: no such file, .*; give its path with --data FILE"):
        corpus_of(package, None)
    assert corpus_of(package, "../moved.csv").fingerprint == fingerprint


def test_changed_data_is_refused_because_the_split_is_unknown(at_home: Finished, tmp_path: Path) -> None:
    lines = (at_home.home / "comments.csv").read_text("utf-8").splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join(lines[:-1]) + "\n", "utf-8")
    with pytest.raises(InputError, match="not the rows that"):
        corpus_of(at_home.package, str(tmp_path / "fewer.csv"))


def test_the_teacher_and_the_linear_baseline_of_the_run_come_first(at_home: Finished, tmp_path: Path) -> None:
    corpus = corpus_of(at_home.package, None)
    found = subjects_of([at_home.package], None, corpus, tmp_path)
    assert [subject.name for subject in found] == [TEACHER, LINEAR_BASELINE_NAME, "tiny-onnx-int8"]
    assert found[0].path.parent.name == "1-baseline"
    assert all(subject.size_bytes > 1000 for subject in found)
    assert list(tmp_path.iterdir()) == []


def test_without_its_run_a_package_still_has_a_linear_baseline(
    at_home: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = shutil.copytree(at_home.package, tmp_path / "alone")
    manifest = json.loads((package / MANIFEST_FILE).read_text("utf-8"))
    manifest["lineage"]["run"] = "runs/gone"
    (package / MANIFEST_FILE).write_text(json.dumps(manifest), "utf-8")
    found = subjects_of([package], None, corpus_of(package, None), tmp_path)
    assert [subject.name for subject in found] == [LINEAR_BASELINE_NAME, "alone"]
    assert "--teacher" in capsys.readouterr().err


def test_the_teacher_of_a_different_run_with_the_same_name_is_not_used(
    at_home: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_of(at_home.package, None)
    shutil.copytree(at_home.run, tmp_path / "runs" / "tiny")
    recorded = json.loads((tmp_path / "runs" / "tiny" / "corpus.json").read_text("utf-8"))
    (tmp_path / "runs" / "tiny" / "corpus.json").write_text(json.dumps(recorded | {"fingerprint": "0" * 64}), "utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    found = subjects_of([at_home.package], None, corpus, tmp_path / "scratch")
    assert [subject.name for subject in found] == [LINEAR_BASELINE_NAME, "tiny-onnx-int8"]
    assert found[0].path == tmp_path / "scratch"


def test_a_bench_writes_json_csv_and_a_figure(
    at_home: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made_up(subjects: list[Subject], corpus: Corpus, threads: int, say: Any, how: Conditions) -> list[Measurement]:
        assert how == Conditions()
        figures = {"accuracy": 0.5, "macro_f1": 0.5, "f1_hate": 0.5, "f1_non_hate": 0.5, "roc_auc": 0.5}
        return [
            Measurement(
                each.name, each.kind, each.size_bytes, threads, 100, 2.0, 3.0, None, 9.0, 9.0, 90.0, 80.0, (), figures
            )
            for each in subjects
        ]

    monkeypatch.setattr("benchmarks.bench.bench", made_up)
    record = copy.deepcopy(RECORD)
    record["package"]["manifest_sha256"] = sha256_of(at_home.package / "manifest.json")
    (tmp_path / "device.json").write_text(json.dumps(record), "utf-8")
    devices = [tmp_path / "device.json"]
    output = Output(tmp_path / "bench", page=True)
    file, changes = bench_packages([at_home.package], None, None, 2, output, devices)
    assert changes == []
    assert file.name == "tiny-onnx-int8-2-threads.json"
    assert sorted(path.suffix for path in file.parent.iterdir()) == [".csv", ".html", ".json", ".png", ".svg"]
    assert TEACHER in file.with_suffix(".csv").read_text("utf-8")
    assert "Cortex-A76" in file.with_suffix(".csv").read_text("utf-8")
    json.loads(file.read_text("utf-8"), parse_constant=pytest.fail)
    assert "tiny-onnx-int8" in capsys.readouterr().out


def test_what_cannot_be_measured_here_is_refused_before_anything_is(at_home: Finished, tmp_path: Path) -> None:
    arm = CpuTarget("board", "a board", architecture="arm64" if "x86" in platform.machine() else "x86-64")
    with pytest.raises(InputError, match=r"--cpu-target board: .* --from device\.json"):
        bench_packages([at_home.package], None, None, 1, Output(tmp_path / "out"), (), Conditions(target=arm))
    for wrong in (0.0, -1.0, math.nan, math.inf):
        conditions = Conditions(Scenario("server", wrong))
        with pytest.raises(InputError, match=r"--p99-ms: .* give milliseconds"):
            bench_packages([at_home.package], None, None, 1, Output(tmp_path / "out"), (), conditions)
    assert not (tmp_path / "out").exists()


def test_packages_of_different_corpora_are_refused(at_home: Finished, tmp_path: Path) -> None:
    other = shutil.copytree(at_home.package, tmp_path / "other")
    manifest = json.loads((other / MANIFEST_FILE).read_text("utf-8"))
    manifest["lineage"]["corpus_fingerprint"] = "0" * 64
    (other / MANIFEST_FILE).write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match="different corpora"):
        bench_packages([at_home.package, other], None, None, 1, Output(tmp_path / "bench", quiet=True))
    assert not (tmp_path / "bench").exists()


@pytest.mark.parametrize(
    ("lineage", "message"),
    [
        ({}, "its manifest does not state its corpus"),
        ({"corpus_fingerprint": "x"}, "its manifest does not state its corpus"),
        ({"corpus_fingerprint": "x", "corpus_settings": {"folds": "5"}}, r"corpus_settings: \[corpus\] folds"),
        ({"corpus_fingerprint": "x", "corpus_settings": {"no_such": 1}}, "corpus_settings: no_such: no such setting"),
    ],
)
def test_a_package_of_an_unknown_corpus_is_one_line(
    at_home: Finished, tmp_path: Path, lineage: dict[str, Any], message: str
) -> None:
    package = shutil.copytree(at_home.package, tmp_path / "stranger")
    manifest = json.loads((package / MANIFEST_FILE).read_text("utf-8")) | {"lineage": lineage}
    (package / MANIFEST_FILE).write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match=message):
        bench_packages([package], None, None, 1, Output(tmp_path / "bench", quiet=True))
    assert not (tmp_path / "bench").exists()

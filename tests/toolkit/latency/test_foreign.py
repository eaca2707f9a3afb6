"""Models that hbt did not make are measured on the same rows: a function, and an ONNX folder in the form of optimum."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench import Output, bench_packages
from exporters.registry import exporter
from tests.helpers import Finished, evidence_of, written
from toolkit.data.corpus import Corpus
from toolkit.latency.foreign import ONNX, PYTHON, load_foreign
from toolkit.latency.measure import Subject, measure
from toolkit.modeling.classifier import Classifier
from toolkit.utils.errors import InputError

FUNCTION = """
def label(texts):
    return ["hate" if "x" in text else "non_hate" for text in texts]


def wrong(texts):
    return ["other" for text in texts]


def fewer(texts):
    return []
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"made_up_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FUNCTION, "utf-8")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_function_becomes_a_predictor(module: str) -> None:
    model = load_foreign(PYTHON, Path(f"{module}.label"), 1, ("non_hate", "hate"))
    assert model.predict_proba(["x", "a"]).tolist() == [[0, 1], [1, 0]]
    assert model.predict(["x"]) == ["hate"]


@pytest.mark.parametrize(
    ("function", "message"), [("wrong", "returned label 'other'; it must return one of a, b"), ("fewer", "0 labels")]
)
def test_a_function_that_does_not_return_a_label_per_text_is_refused(module: str, function: str, message: str) -> None:
    model = load_foreign(PYTHON, Path(f"{module}.{function}"), 1, ("a", "b"))
    with pytest.raises(InputError, match=message):
        model.predict_proba(["text"])


@pytest.mark.parametrize("place", ["no_such_module.f", "json.no_such_function", "alone"])
def test_a_missing_function_is_one_line(place: str) -> None:
    with pytest.raises(InputError, match=r"python:.*give a function"):
        load_foreign(PYTHON, Path(place), 1, ("a", "b"))


def test_a_function_is_measured_in_its_own_process(module: str) -> None:
    (found,) = measure([Subject("mine", "python", Path(f"{module}.label"), 0)], ["a", "b"] * 15, rounds=2)
    assert found.samples == 30
    assert found.p50_ms is not None
    assert found.imported == ()


def test_an_onnx_folder_has_the_scores_of_the_package(learned: Classifier, toy: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    written("onnx-fp32", learned, evidence_of(toy, learned.rule), folder, search="off")
    own = exporter("onnx-fp32").load(folder)
    model = load_foreign(ONNX, folder, 1, ())
    texts = toy.texts[:5]
    np.testing.assert_allclose(model.predict_proba(texts), own.predict_proba(texts), atol=1e-6)
    assert tuple(model.labels) == tuple(own.labels)
    (folder / "config.json").write_text(json.dumps({"id2label": {"1": "a"}}), "utf-8")
    with pytest.raises(InputError, match="no id2label"):
        load_foreign(ONNX, folder, 1, ())
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer\.json; give a folder with an ONNX classifier"):
        load_foreign(ONNX, folder, 1, ())


def test_a_foreign_model_alone_has_no_rows_to_be_measured_on(at_home: Finished, tmp_path: Path) -> None:
    output = Output(tmp_path / "bench", quiet=True)
    with pytest.raises(InputError, match="one package at least"):
        bench_packages([Path("python:json.loads")], None, None, 1, output)
    with pytest.raises(InputError, match=r"onnx:.*has no config\.json"):
        bench_packages([at_home.package, Path(f"onnx:{tmp_path}")], None, None, 1, output)
    assert not (tmp_path / "bench").exists()

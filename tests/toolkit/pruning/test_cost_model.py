import json
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from toolkit.config.settings import ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.modeling.architecture import Sizes, encoder_weights, sizes
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.pruning import cost_model
from toolkit.pruning.cost_model import Shape, fit_costs, measure_shapes, measured_costs, shapes_to_measure
from toolkit.pruning.selection import Costs

TRUE = Costs(base=0.3, layer=0.05, head=0.01, neuron=0.0004)


@pytest.fixture(scope="module")
def made(toy: Corpus) -> Classifier:
    settings = ModelSettings(model="shape:2x32x4", pooling="mean", max_length=32)
    return build_classifier(settings, toy.label_names, toy.take(toy.rows("train")), seed=1)


def shapes(noise: float = 0.0) -> list[Shape]:
    """Shapes of a 4-layer network whose latency is linear, with noise, and whose size is twice the exact latency."""
    random = np.random.default_rng(0)
    found = []
    for left in shapes_to_measure([Sizes(12, 1536)] * 4):
        ms = TRUE.of(left) * (1 + noise * random.normal())
        found.append(Shape(left, ms, 2 * TRUE.of(left)))
    return found


def test_linear_costs_are_recovered() -> None:
    model = fit_costs(shapes())
    assert astuple(model.ms) == pytest.approx(astuple(TRUE), rel=1e-6)
    assert astuple(model.mb) == pytest.approx([2 * each for each in astuple(TRUE)], rel=1e-6)
    assert model.ms_error < 1e-6
    assert model.mb_error < 1e-6


def test_the_error_is_the_leave_one_out_error() -> None:
    """Compare with least squares in NumPy, leaving out each shape in turn."""
    noisy = shapes(noise=0.05)
    counts = np.array([[1, len(s.left), sum(x.heads for x in s.left), sum(x.neurons for x in s.left)] for s in noisy])
    ms = np.array([shape.ms for shape in noisy])
    errors = []
    for place in range(len(ms)):
        rest = np.arange(len(ms)) != place
        weights, *_ = np.linalg.lstsq(counts[rest] / ms[rest, None], np.ones(rest.sum()), rcond=None)
        assert (weights > 0).all()  # so that the non-negativity constraint is inactive
        errors.append(abs(counts[place] @ weights / ms[place] - 1))
    assert fit_costs(noisy).ms_error == pytest.approx(max(errors), rel=1e-4)


def test_no_part_has_a_negative_cost() -> None:
    """If fewer heads happened to be slower, the cost of a head is zero, not negative."""
    noisy = [replace(s, ms=1.0 - 0.002 * sum(x.heads for x in s.left)) for s in shapes()]
    assert min(astuple(fit_costs(noisy).ms)) >= 0


def test_shapes_identify_the_costs_of_heads_neurons_and_layers() -> None:
    for full in ([Sizes(12, 1536)] * 4, [Sizes(4, 64)], [Sizes(3, 96), Sizes(1, 16)], [Sizes(12, 3072)] * 12):
        lefts = shapes_to_measure(full)
        assert lefts[0] == tuple(full)
        assert len(set(lefts)) == len(lefts)
        counts = [[1, sum(x.heads for x in left), sum(x.neurons for x in left)] for left in lefts]
        assert np.linalg.matrix_rank(counts) == 3
        assert all(len(left) <= len(full) for left in lefts)
        for left in lefts:
            assert all(
                1 <= x.heads <= w.heads and 1 <= x.neurons <= w.neurons for x, w in zip(left, full, strict=False)
            )


def test_a_measured_shape_has_the_size_of_its_export(made: Classifier, toy: Corpus) -> None:
    texts = toy.take(toy.rows("validation"))
    small, full = measure_shapes(made, [[Sizes(1, 16)], sizes(made.network)], "onnx-fp32", texts)
    assert small.left == (Sizes(1, 16),)
    assert small.ms > 0
    removed = encoder_weights(made.network) - (32 * 8 * 4 + 3 * 8 + 16 * 65 + 32 + 32 + 4 * 32)
    difference = (full.mb - small.mb) * 1e6
    assert 4 * removed < difference < 4 * removed + 30_000  # four bytes per weight, and the graph nodes of a layer
    assert sizes(made.network) == [Sizes(4, 128)] * 2


def test_costs_are_measured_once(
    made: Classifier, toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def fake_measure(
        classifier: Classifier, lefts: list[tuple[Sizes, ...]], target: str, texts: list[str]
    ) -> list[Shape]:
        measured.append(target)
        return [Shape(left, TRUE.of(left), TRUE.of(left)) for left in lefts]

    monkeypatch.setattr(cost_model, "measure_shapes", fake_measure)
    texts = toy.take(toy.rows("validation"))
    first = measured_costs(made, "onnx-int8", texts, tmp_path)
    assert measured_costs(made, "onnx-int8", texts, tmp_path) == first
    assert measured == ["onnx-int8"]
    assert "loaded from" in capsys.readouterr().err
    measured_costs(made, "onnx-fp32", texts, tmp_path)
    measured_costs(made, "onnx-int8", texts[:-1], tmp_path)
    assert measured == ["onnx-int8", "onnx-fp32", "onnx-int8"]
    assert len(json.loads(next(tmp_path.glob("*.json")).read_text())) == len(first.shapes)

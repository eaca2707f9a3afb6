from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters.onnx_fp32 import export_graph, largest_logit_gap, missing_modules
from exporters.onnx_int8 import logit_shift, quantize
from exporters.registry import Artefact, exporter, targets
from tests.helpers import ODD_TEXTS
from toolkit.classifier import Classifier, pad
from toolkit.corpus import Corpus
from toolkit.encoders import build_classifier
from toolkit.errors import InputError
from toolkit.recipe import ModelSettings
from toolkit.tokenizer import encode


@pytest.fixture(scope="module")
def fp32(learned: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return exporter("onnx-fp32").export(learned, ODD_TEXTS, tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def int8(learned: Classifier, toy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    return exporter("onnx-int8").export(learned, toy.take(toy.rows("validation")), tmp_path_factory.mktemp("int8"))


@cache
def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def run(file: Path, encoded: Sequence[Sequence[int]], pad_id: int, to: int = 0) -> np.ndarray:
    ids, mask = pad(encoded, pad_id, to)
    return session_of(file).run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]


def test_every_target_has_an_exporter_of_its_name() -> None:
    assert targets() == ["onnx-int8", "onnx-fp32"]
    for name in targets():
        found = exporter(name)
        assert found.name == name
        assert found.available() is None
        assert found.loader.is_file()
        assert found.distributions[0] == "onnxruntime"


@pytest.mark.parametrize("name", ["nope", "", "onnx", "ONNX-INT8", "exporters.registry"])
def test_a_target_that_is_not_there_is_told_with_those_that_are(name: str) -> None:
    with pytest.raises(InputError, match="there are onnx-int8, onnx-fp32"):
        exporter(name)


def test_what_is_missing_is_told_with_the_install() -> None:
    assert missing_modules("onnx") is None
    assert missing_modules("onnx", "no_such_module") == "no_such_module missing: pip install 'optimum[onnxruntime]'"


def test_single_precision_gives_the_logits_of_torch(learned: Classifier, fp32: Artefact) -> None:
    for text, ids in zip(ODD_TEXTS, encode(learned.tokenizer, ODD_TEXTS), strict=True):
        found = run(fp32.file, [ids], learned.pad_id)
        np.testing.assert_allclose(found, learned.predict_logits([text]), atol=1e-4)
    assert fp32.details["fp32_logit_gap"] < 1e-4
    assert fp32.details["rows_checked"] == len(ODD_TEXTS)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_every_pooling_is_exported(toy: Corpus, tmp_path: Path, pooling: str) -> None:
    settings = ModelSettings(model="shape:1x32", pooling=pooling, max_length=16)  # type: ignore[arg-type]
    made = build_classifier(settings, ("a", "b", "c"), toy.texts, seed=0)
    export_graph(made, tmp_path / "model.onnx")
    assert largest_logit_gap(made, [*ODD_TEXTS, *toy.texts[:40]], tmp_path / "model.onnx") < 1e-4


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("length", [2, 7, 32])
def test_batch_and_length_are_free(learned: Classifier, fp32: Artefact, batch: int, length: int) -> None:
    ids = np.random.default_rng(0).integers(5, 60, (batch, length)).tolist()
    assert run(fp32.file, ids, learned.pad_id).shape == (batch, 2)


def test_padding_does_not_move_the_graphs_logits(learned: Classifier, fp32: Artefact) -> None:
    encoded = encode(learned.tokenizer, ODD_TEXTS)
    together = run(fp32.file, encoded, learned.pad_id, to=32)
    alone = np.concatenate([run(fp32.file, [ids], learned.pad_id) for ids in encoded])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_graph_takes_ids_and_mask_and_gives_logits(fp32: Artefact, int8: Artefact) -> None:
    for made in (fp32, int8):
        session = session_of(made.file)
        assert {entry.name for entry in session.get_inputs()} == {"input_ids", "attention_mask"}
        assert [entry.name for entry in session.get_outputs()] == ["logits"]


def test_a_graph_that_is_not_the_classifier_shows_a_gap(
    learned: Classifier, classifier: Classifier, fp32: Artefact
) -> None:
    assert largest_logit_gap(classifier, ODD_TEXTS, fp32.file) > 0.01


def test_eight_bits_agree_on_most_rows_and_take_less_room(
    learned: Classifier, toy: Corpus, fp32: Artefact, int8: Artefact
) -> None:
    encoded = encode(learned.tokenizer, toy.texts)
    single, eight = (
        np.concatenate([run(made.file, [ids], learned.pad_id) for ids in encoded]).argmax(axis=1)
        for made in (fp32, int8)
    )
    assert (single == eight).mean() > 0.9
    assert 20 < single.sum() < 220
    assert int8.file.stat().st_size < 0.8 * fp32.file.stat().st_size
    assert int8.details["fp32_size_bytes"] == fp32.file.stat().st_size


def test_weights_and_embeddings_are_in_eight_bits(int8: Artefact) -> None:
    graph = onnx.load(int8.file).graph
    sizes: dict[int, int] = {}
    for tensor in graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    eight = sizes.get(onnx.TensorProto.INT8, 0) + sizes.get(onnx.TensorProto.UINT8, 0)
    assert eight > 0.85 * sum(sizes.values())


def test_the_form_that_moves_the_logits_less_is_kept(
    learned: Classifier, toy: Corpus, int8: Artefact, fp32: Artefact, tmp_path: Path
) -> None:
    texts = toy.take(toy.rows("validation"))
    moved = {}
    for per_channel in (False, True):
        quantize(fp32.file, tmp_path / f"{per_channel}.onnx", per_channel)
        moved[per_channel] = logit_shift(learned, texts, tmp_path / f"{per_channel}.onnx")
    assert int8.details["mean_logit_shift"] == pytest.approx(min(moved.values()))
    assert int8.details["mean_logit_shift_of_the_other"] == pytest.approx(max(moved.values()))
    assert moved[int8.details["per_channel"]] == min(moved.values())


def test_an_export_leaves_one_file(fp32: Artefact, int8: Artefact) -> None:
    for made in (fp32, int8):
        assert [file.name for file in made.file.parent.iterdir()] == ["model.onnx"]

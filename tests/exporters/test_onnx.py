from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters.onnx_fp32 import export_graph, largest_logit_gap, missing_modules, plain_attention
from exporters.registry import Evidence
from tests.helpers import ODD_TEXTS, evidence_of, written
from tests.toolkit.modeling.test_architecture import LENGTH, network_of
from toolkit.config.settings import ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.classifier import Classifier, pad
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.tokenizer import PAD, encode, train_tokenizer
from toolkit.utils.errors import CannotExport


@dataclass(frozen=True)
class Made:
    file: Path
    facts: dict[str, Any]


def made(target: str, classifier: Classifier, evidence: Evidence, folder: Path) -> Made:
    facts = written(target, classifier, evidence, folder / "made")
    return Made(folder / "made" / "onnx" / "model.onnx", facts)


@pytest.fixture(scope="module")
def fp32(learned: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Made:
    evidence = Evidence(ODD_TEXTS, ODD_TEXTS, np.zeros(len(ODD_TEXTS), dtype=np.int64), DecisionRule())
    return made("onnx-fp32", learned, evidence, tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def int8(learned: Classifier, toy: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("onnx-int8", learned, evidence_of(toy, DecisionRule(0.45)), tmp_path_factory.mktemp("int8"))


@cache
def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def run(file: Path, encoded: Sequence[Sequence[int]], pad_id: int, to: int = 0) -> np.ndarray:
    ids, mask = pad(encoded, pad_id, to)
    return session_of(file).run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]


def test_missing_modules_are_reported_with_the_install_command() -> None:
    assert missing_modules("onnx") is None
    assert missing_modules("onnx", "no_such_module") == "no_such_module missing: pip install onnx onnxruntime"


def test_single_precision_matches_the_logits_of_torch(learned: Classifier, fp32: Made) -> None:
    for text, ids in zip(ODD_TEXTS, encode(learned.tokenizer, ODD_TEXTS), strict=True):
        found = run(fp32.file, [ids], learned.pad_id)
        np.testing.assert_allclose(found, learned.predict_logits([text]), atol=1e-4)
    assert fp32.facts["fp32_logit_gap"] < 1e-4


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_every_pooling_is_exported(toy: Corpus, tmp_path: Path, pooling: str) -> None:
    settings = ModelSettings(model="shape:1x32", pooling=pooling, max_length=16)  # type: ignore[arg-type]
    made = build_classifier(settings, ("a", "b", "c"), toy.texts, seed=0)
    export_graph(made, tmp_path / "model.onnx")
    assert largest_logit_gap(made, [*ODD_TEXTS, *toy.texts[:40]], tmp_path / "model.onnx") < 1e-4


@pytest.mark.parametrize("kind", ["bert", "distilbert", "albert", "roberta"])
def test_no_size_is_left_open_to_the_runtime(kind: str, toy: Corpus, tmp_path: Path) -> None:
    """OpenVINO computes what the tracer writes for a size of -1 wrongly."""
    tokenizer = train_tokenizer(toy.texts, LENGTH)
    network = network_of(kind, tokenizer.get_vocab_size(), tokenizer.token_to_id(PAD))
    made = Classifier(network, tokenizer, tokenizer.token_to_id(PAD), ("a", "b"))
    export_graph(made, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    kinds = {name: node.op_type for node in graph.node for name in node.output}
    assert not [node.name for node in graph.node if node.op_type == "Expand" and kinds.get(node.input[1]) == "Where"]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert all(used.intersection(node.output) for node in graph.node)
    assert largest_logit_gap(made, [*ODD_TEXTS, *toy.texts[:20]], tmp_path / "model.onnx") < 1e-4


def raised_from(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("no such operator"), CannotExport),
        (raised_from(RuntimeError("no such operator"), ValueError("unknown")), CannotExport),
        (OSError(28, "No space left on device"), OSError),
        (MemoryError(), MemoryError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), MemoryError),
        (raised_from(RuntimeError("export failed"), OSError(28, "No space left on device")), OSError),
        (raised_from(RuntimeError("export failed"), raised_from(ValueError("x"), MemoryError())), MemoryError),
    ],
)
def test_a_full_disk_is_not_read_as_a_network_that_onnx_cannot_hold(
    classifier: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    expected: type[BaseException],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(expected):
        export_graph(classifier, tmp_path / "model.onnx")


def test_a_folder_that_is_not_there_is_an_error_of_the_disk(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        export_graph(classifier, tmp_path / "nowhere" / "model.onnx")


def test_export_leaves_the_network_as_it_was(toy: Corpus, tmp_path: Path) -> None:
    made = build_classifier(ModelSettings(model="shape:1x32", max_length=16), ("a", "b"), toy.texts, seed=0)
    config: Any = made.network.config
    before = config._attn_implementation
    expected = made.predict_logits(ODD_TEXTS).tobytes()
    made.network.train()
    export_graph(made, tmp_path / "model.onnx")
    assert made.network.training
    assert all(module.training for module in made.network.modules())
    assert config._attn_implementation == before
    assert made.predict_logits(ODD_TEXTS).tobytes() == expected
    with pytest.raises(ZeroDivisionError), plain_attention(made.network):
        1 / 0  # noqa: B018
    assert config._attn_implementation == before


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("length", [2, 7, 32])
def test_batch_size_and_length_are_dynamic(learned: Classifier, fp32: Made, batch: int, length: int) -> None:
    ids = np.random.default_rng(0).integers(5, 60, (batch, length)).tolist()
    assert run(fp32.file, ids, learned.pad_id).shape == (batch, 2)


def test_padding_does_not_change_the_logits(learned: Classifier, fp32: Made) -> None:
    encoded = encode(learned.tokenizer, ODD_TEXTS)
    together = run(fp32.file, encoded, learned.pad_id, to=32)
    alone = np.concatenate([run(fp32.file, [ids], learned.pad_id) for ids in encoded])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_graph_takes_ids_and_mask_and_gives_logits(fp32: Made, int8: Made) -> None:
    for each in (fp32, int8):
        session = session_of(each.file)
        assert {entry.name for entry in session.get_inputs()} == {"input_ids", "attention_mask"}
        assert [entry.name for entry in session.get_outputs()] == ["logits"]


def test_a_graph_of_another_classifier_shows_a_gap(learned: Classifier, classifier: Classifier, fp32: Made) -> None:
    assert largest_logit_gap(classifier, ODD_TEXTS, fp32.file) > 0.01


def test_int8_agrees_on_most_rows_and_is_smaller(learned: Classifier, toy: Corpus, fp32: Made, int8: Made) -> None:
    encoded = encode(learned.tokenizer, toy.texts)
    reference, eight = (
        np.concatenate([run(each.file, [ids], learned.pad_id) for ids in encoded]).argmax(axis=1)
        for each in (fp32, int8)
    )
    assert (reference == eight).mean() > 0.9
    assert 20 < reference.sum() < 220
    assert int8.file.stat().st_size < 0.8 * fp32.file.stat().st_size
    assert int8.facts["fp32_size_bytes"] == fp32.file.stat().st_size


def test_weights_and_embeddings_are_int8(int8: Made) -> None:
    graph = onnx.load(int8.file).graph
    sizes: dict[int, int] = {}
    for tensor in graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    eight = sizes.get(onnx.TensorProto.INT8, 0) + sizes.get(onnx.TensorProto.UINT8, 0)
    assert eight > 0.85 * sum(sizes.values())

"""Peers that compress the teacher: its parts are the teacher, and labels are those of an independent call."""

import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers.common import Given, Label, Missing, Rows, rows_of
from benchmarks.peers.compressed import choice, nncf_static, onnxruntime_dynamic, torch_dynamic, transformers_exporters
from benchmarks.peers.compressed.choice import Trial, chosen, pick
from benchmarks.peers.compressed.teacher import (
    ENCODER,
    encoder_of,
    labels_from,
    network_of,
    read_head,
    read_tokenizer,
    torch_labels,
    write_parts,
)
from benchmarks.peers.registry import PEERS
from benchmarks.peers.training import train_here
from toolkit.data.corpus import Corpus
from toolkit.evaluation.predictor import rule_of
from toolkit.modeling.classifier import Classifier, save_classifier

LIBRARIES = {"transformers_exporters": ("transformers.exporters", "onnxscript"), "nncf": ("nncf", "openvino")}


@pytest.fixture(scope="module")
def rows(toy: Corpus) -> Rows:
    return rows_of(toy)


@pytest.fixture(scope="module")
def parts(learned: Classifier, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_classifier(learned, folder / "checkpoint")
    write_parts(folder / "checkpoint", folder / "teacher", rows)
    return folder / "teacher"


def expected_labels(classifier: Classifier, texts: Sequence[str]) -> list[str]:
    predicted = rule_of(classifier).predict(classifier.predict_proba(texts))
    return [classifier.labels[i] for i in predicted]


@pytest.mark.slow
def test_the_parts_in_torch_are_the_teacher(learned: Classifier, toy: Corpus, parts: Path) -> None:
    import torch

    network, texts = network_of(parts), toy.texts[:20]
    tokenizer = read_tokenizer(parts)
    ids = [tokenizer.encode(text).ids for text in texts]
    with torch.inference_mode():
        found = [network(torch.tensor([each]), torch.ones(1, len(each), dtype=torch.int64))[0].numpy() for each in ids]
    np.testing.assert_allclose(np.array(found), learned.predict_logits(texts), atol=1e-5)
    for length in (None, 32):
        assert torch_labels(learned.labels, parts, network, length)(toy.texts) == expected_labels(learned, toy.texts)


def test_the_head_in_numpy_is_the_teacher_with_its_decision_rule(
    learned: Classifier, toy: Corpus, parts: Path, rows: Rows
) -> None:
    import torch

    encoder, head, tokenizer = encoder_of(parts), read_head(parts), read_tokenizer(parts)

    def logits_of(text: str) -> np.ndarray:
        with torch.inference_mode():
            return head.logits(encoder(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].numpy())

    np.testing.assert_allclose(logits_of(toy.texts[0]), learned.predict_logits(toy.texts[:1])[0], atol=1e-5)
    assert labels_from(learned.labels, head, logits_of)(toy.texts[:40]) == expected_labels(learned, toy.texts[:40])
    truth = [rows.names[i] for i in rows.validation_labels]
    right = np.mean([a == b for a, b in zip(expected_labels(learned, rows.validation_texts), truth, strict=True)])
    assert head.validation_macro_f1 == pytest.approx(right, abs=0.05)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_every_pooling_is_computed_as_in_training(pooling: str) -> None:
    import torch

    from benchmarks.peers.compressed.teacher import Head
    from toolkit.modeling.classifier import pool

    hidden = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    head = Head(pooling, np.eye(4, dtype=np.float32), np.zeros(4, np.float32), np.zeros(4, np.float32), 1.0)
    mask = torch.ones(1, 5, dtype=torch.int64)
    expected = pool(torch.from_numpy(hidden)[None], mask, pooling)[0].numpy()
    np.testing.assert_allclose(head.logits(hidden), expected, atol=1e-6)


def trial(name: str, macro_f1: float, ms: float) -> Trial:
    return Trial({"name": name}, Path(name), macro_f1, ms)


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([trial("slow", 0.800, 5), trial("fast", 0.796, 2), trial("too inaccurate", 0.794, 1)], "fast"),
        ([trial("best", 0.79, 5), trial("fast", 0.78, 1)], "best"),
    ],
    ids=["fastest within half a point", "most accurate if none is"],
)
def test_the_choice_is_that_of_the_quality_gate(trials: list[Trial], expected: str) -> None:
    assert pick(trials, teacher=0.8).settings["name"] == expected


def test_settings_are_measured_on_validation_rows_only_and_one_that_fails_is_left_out(
    rows: Rows, tmp_path: Path
) -> None:
    seen: set[str] = set()

    def make(settings: dict[str, Any], folder: Path) -> None:
        if settings["name"] == "broken":
            raise RuntimeError("no such operation")
        (folder / "model").write_text(settings["name"], "utf-8")

    def label(folder: Path) -> Label:
        good = (folder / "model").read_text("utf-8") == "good"

        def labels(texts: Sequence[str]) -> list[str]:
            seen.update(texts)
            return ["sea" if good and "sea" in text else "sun" for text in texts]

        return labels

    settings = [{"name": "bad"}, {"name": "broken"}, {"name": "good"}]
    found = chosen(rows, settings, make, label, 1.0, tmp_path)
    assert (found.settings, found.macro_f1) == ({"name": "good"}, 1.0)
    assert seen == {*rows.validation_texts}
    assert [(each.name, (each / "model").read_text("utf-8")) for each in tmp_path.iterdir()] == [("chosen", "good")]
    with pytest.raises(Missing, match="RuntimeError: no such operation"):
        chosen(rows, settings[1:2], make, label, 1.0, tmp_path)


def independent_torch(parts: Path, learned: Classifier) -> Any:
    import copy

    import torch

    network = torch.ao.quantization.quantize_dynamic(
        copy.deepcopy(learned.network), {torch.nn.Linear}, dtype=torch.qint8
    )

    def logits(ids: list[int]) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64))["logits"][0].numpy()

    return logits


def independent_onnxruntime(parts: Path, learned: Classifier) -> Any:
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    from exporters.onnx_fp32 import export_graph

    export_graph(learned, parts / "own.onnx")
    quantize_dynamic(parts / "own.onnx", parts / "own-int8.onnx")
    session = onnxruntime.InferenceSession(str(parts / "own-int8.onnx"))

    def logits(ids: list[int]) -> np.ndarray:
        given = np.array([ids], dtype=np.int64)
        return session.run(None, {"input_ids": given, "attention_mask": np.ones_like(given)})[0][0]

    return logits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("peer", "independent"),
    [
        ("torch_padded", None),
        ("torch_dynamic", independent_torch),
        ("onnxruntime", independent_onnxruntime),
        ("transformers_exporters", None),
        ("nncf", None),
    ],
)
def test_a_compressed_teacher_gives_the_labels_of_an_independent_call(
    peer: str,
    independent: Any,
    parts: Path,
    rows: Rows,
    learned: Classifier,
    toy: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for library in LIBRARIES.get(peer, ()):
        pytest.importorskip(library)
    monkeypatch.setattr(onnxruntime_dynamic, "SETTINGS", onnxruntime_dynamic.SETTINGS[2:3])  # the tracer is quick
    monkeypatch.setattr(transformers_exporters, "SETTINGS", transformers_exporters.SETTINGS[:1])
    monkeypatch.setattr(nncf_static, "SETTINGS", nncf_static.SETTINGS[:1])
    facts = train_here(PEERS[peer], rows, tmp_path, Given(teacher=parts))
    (model,) = PEERS[peer].models
    assert facts["validation"][model] > 0.9
    module = importlib.import_module(f"benchmarks.peers.{PEERS[peer].module}")
    found = module.load(tmp_path, rows.names, model)(toy.texts[:60])
    if independent is None:  # static ranges change the labels of a few texts near the threshold
        assert np.mean([a == b for a, b in zip(found, expected_labels(learned, toy.texts[:60]), strict=True)]) >= 0.9
        return
    tokenizer, offsets = read_tokenizer(parts), rule_of(learned).logit_offsets(2)
    logits = independent(parts, learned)
    assert found == [
        learned.labels[int((logits(tokenizer.encode(text).ids) + offsets).argmax())] for text in toy.texts[:60]
    ]


@pytest.mark.slow
def test_optimum_in_its_environment_keeps_the_labels(
    parts: Path, rows: Rows, learned: Classifier, toy: Corpus, tmp_path: Path
) -> None:
    pytest.importorskip("optimum.onnxruntime")
    if shutil.which("optimum-cli") is None:
        pytest.skip("optimum-cli is not on PATH")
    from safetensors.torch import load_file, save_file

    from benchmarks.peers.compressed import optimum_cli

    # The example inputs of optimum have two types of tokens, which the toy encoder does not know.
    wider = shutil.copytree(parts, tmp_path / "wider") / ENCODER
    weights = load_file(wider / "model.safetensors")
    table = "embeddings.token_type_embeddings.weight"  # (types, width)
    save_file(weights | {table: weights[table].repeat(2, 1)}, wider / "model.safetensors", {"format": "pt"})
    config = json.loads((wider / "config.json").read_text("utf-8"))
    (wider / "config.json").write_text(json.dumps(config | {"type_vocab_size": 2}), "utf-8")
    (tmp_path / "peer").mkdir()
    train_here(PEERS["optimum"], rows, tmp_path / "peer", Given(teacher=tmp_path / "wider"))
    for model in PEERS["optimum"].models:
        found = optimum_cli.load(tmp_path / "peer", rows.names, model)(toy.texts[:40])
        assert found == expected_labels(learned, toy.texts[:40])


def test_settings_of_torch_are_its_defaults(parts: Path, rows: Rows, tmp_path: Path) -> None:
    facts = torch_dynamic.train(rows, tmp_path, Given(teacher=parts))
    assert facts["settings"] == {"dtype": "qint8"}
    assert json.loads((tmp_path / "head.json").read_text("utf-8"))["pooling"] == "mean"
    assert choice.MAX_DROP == 0.005

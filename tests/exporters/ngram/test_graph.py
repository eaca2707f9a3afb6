import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from exporters.loaders import onnx as transformer_loader
from exporters.loaders.common import Model
from exporters.loaders.ngram_onnx import load
from exporters.ngram.graph import write_fp32, write_int8
from exporters.ngram.tables import quantize_table
from exporters.onnx_fp32 import largest_logit_gap
from exporters.registry import Evidence, exporter
from tests.helpers import ODD_TEXTS, written
from toolkit import package
from toolkit.config.settings import CorpusSettings, ExportSettings
from toolkit.data.demo import DEMO_SENTENCES, demo_table
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.classifier import Classifier, load_classifier, pad, save_classifier
from toolkit.modeling.ngram import PAD_ID, NgramConfig, NgramNetwork, character_tokenizer, table_rows
from toolkit.modeling.tokenizer import encode
from toolkit.workflows.compress import compress_checkpoint

TEXTS = demo_table().columns["text"][:200]
PLAIN_OPERATORS = {
    "Cast", "Conv", "Div", "Gather", "Gemm", "MatMul", "Max", "Min", "Mod", "ReduceSum", "Slice", "Sqrt", "Unsqueeze",
}  # fmt: skip
FOR_CODES = {"Abs", "Mul"}
FOR_WORDS = {
    "Add", "Concat", "CumSum", "Equal", "GatherND", "Greater", "Less", "Mul", "NonZero", "ScatterND", "Sub",
    "Transpose", "Where",
}  # fmt: skip
WORD_ROWS = pytest.mark.parametrize("word_rows", [0, 61])


def student(labels: int = 2, rows: int = 4096, seed: int = 0, word_rows: int = 0) -> Classifier:
    """Random heavy-tailed weights."""
    outputs = 1 if labels == 2 else labels
    network = NgramNetwork(NgramConfig(rows, outputs, word_rows))
    dice = np.random.default_rng(seed)
    used = dice.random(rows) < 0.7
    used[0] = False
    table = np.concatenate([dice.uniform(1, 90, (rows, 1)), dice.standard_t(3, (rows, outputs))], axis=1)
    network.table.data = torch.from_numpy((table * used[:, None]).astype(np.float32))
    network.intercept.data = torch.from_numpy(dice.normal(size=outputs).astype(np.float32))
    names = tuple(f"label {i}" for i in range(labels))
    rule = DecisionRule(0.4 if labels == 2 else None)
    return Classifier(network.eval(), character_tokenizer(TEXTS), PAD_ID, names, rule)


def network_of(made: Classifier) -> NgramNetwork:
    assert isinstance(made.network, NgramNetwork)
    return made.network


def run(file: Path, ids: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_ids": ids})[0]


def package_of(made: Classifier, target: str, folder: Path) -> Path:
    """A loadable folder without model card and manifest."""
    written(target, made, evidence(made, TEXTS), folder)
    return folder


def evidence(made: Classifier, texts: list[str]) -> Evidence:
    return Evidence(texts, texts, np.zeros(len(texts), dtype=np.int64), made.rule or DecisionRule())


@pytest.mark.parametrize("labels", [2, 3, 7])
@WORD_ROWS
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 3), (1, 4), (4, 5), (32, 45), (2, 1024)])
def test_single_precision_matches_torch_for_any_ids(
    tmp_path: Path, labels: int, shape: tuple[int, int], word_rows: int
) -> None:
    made = student(labels, word_rows=word_rows)
    write_fp32(network_of(made), tmp_path / "model.onnx")
    ids = np.random.default_rng(0).choice([0, 0, 1, 2, 2, 2, 3, 4, 5, 60, 900, 70_000, 1_114_111], shape)
    ids[:, 0] = ids[:, 0] if word_rows == 0 else 2  # a text starts with a space
    with torch.inference_mode():
        expected = made.network(torch.from_numpy(ids))["logits"].numpy()
    np.testing.assert_allclose(run(tmp_path / "model.onnx", ids), expected, atol=1e-4)


@WORD_ROWS
@pytest.mark.parametrize("rows", [256, 1000, 2**18])
def test_every_window_looks_up_its_row(tmp_path: Path, rows: int, word_rows: int) -> None:
    """Each row weighs its own number."""
    made = student(2, rows, word_rows=word_rows)
    network = network_of(made)
    network.table.data[:, 0] = 0
    network.table.data[:, 1] = torch.arange(rows)
    write_fp32(network, tmp_path / "model.onnx")
    for ids in np.random.default_rng(1).integers(0, 9, (40, 1, 6)):
        ids[:, [0, 3, 5]] = ids[:, [0, 3, 5]] if word_rows == 0 else 2
        expected = int(table_rows(torch.from_numpy(ids), rows, word_rows).sum()) + network.intercept.item()
        assert run(tmp_path / "model.onnx", ids)[0, 1] * 2 == pytest.approx(expected, abs=0.5)


@WORD_ROWS
@pytest.mark.parametrize("labels", [2, 7])
def test_real_and_odd_texts_have_the_logits_of_torch(tmp_path: Path, labels: int, word_rows: int) -> None:
    made = student(labels, word_rows=word_rows)
    write_fp32(network_of(made), tmp_path / "model.onnx")
    assert largest_logit_gap(made, [*TEXTS, *ODD_TEXTS, "", "a" * 5000], tmp_path / "model.onnx") < 1e-4


def test_a_text_without_an_ngram_gets_the_intercept(tmp_path: Path) -> None:
    made = student(3)
    write_fp32(network_of(made), tmp_path / "fp32.onnx")
    write_int8(network_of(made), tmp_path / "int8.onnx")
    for file in tmp_path.iterdir():
        found = run(file, np.array([[2], [0], [7]]))
        np.testing.assert_allclose(found, [network_of(made).intercept.tolist()] * 3, atol=1e-6)


@WORD_ROWS
def test_both_graphs_have_few_standard_operators(tmp_path: Path, word_rows: int) -> None:
    made = student(word_rows=word_rows)
    write_fp32(network_of(made), tmp_path / "fp32.onnx")
    write_int8(network_of(made), tmp_path / "int8.onnx")
    more, extra = (36, FOR_WORDS) if word_rows else (0, set())
    for file, nodes, others in (("fp32.onnx", 18 + more, extra), ("int8.onnx", 20 + more, FOR_CODES | extra)):
        model = onnx.load(tmp_path / file)
        kinds = [node.op_type for node in model.graph.node]
        assert set(kinds) == PLAIN_OPERATORS | others
        assert len(kinds) == nodes
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
        assert [entry.name for entry in model.graph.input] == ["input_ids"]
        assert [entry.name for entry in model.graph.output] == ["logits"]


@pytest.mark.parametrize("labels", [2, 7])
def test_int8_is_close_and_a_quarter_of_the_size(tmp_path: Path, labels: int) -> None:
    made = student(labels, 2**14)
    reference = written("onnx-fp32", made, evidence(made, TEXTS), tmp_path / "single")
    facts = written("onnx-int8", made, evidence(made, TEXTS), tmp_path / "int8")
    exact = made.predict_logits(TEXTS)
    file, whole = (tmp_path / name / "onnx" / "model.onnx" for name in ("int8", "single"))
    found = exporter("onnx-int8").load(tmp_path / "int8").predict_logits(TEXTS)
    assert 0 < np.abs(found - exact).mean() < 0.03 * exact.std()
    assert file.stat().st_size < 0.3 * whole.stat().st_size
    assert facts["fp32_size_bytes"] == whole.stat().st_size
    assert facts["fp32_logit_gap"] == reference["fp32_logit_gap"] < 1e-4
    (table,) = [tensor for tensor in onnx.load(file).graph.initializer if tensor.name == "table"]
    assert table.data_type == onnx.TensorProto.INT8


def test_the_int8_table_keeps_zeros_signs_and_every_idf_zeros_signs_and_every_idf() -> None:
    made = student(2)
    exact = network_of(made).table.numpy().astype(np.float64)
    table = quantize_table(network_of(made))
    assert table.values.dtype == np.int8
    assert table.values[:, 0].min() == 0
    assert np.abs(table.values).max(axis=0).tolist() == [127, 127]
    assert ((table.values[:, 0] > 0) == (exact[:, 0] > 0)).all()
    assert (table.values[:, 1] * np.sign(exact[:, 1]) >= 0).all()
    codes = table.values.astype(np.float64)
    root = np.sqrt(np.abs(exact) / np.abs(exact).max(axis=0)) * 127
    assert np.abs(np.abs(codes) - root).max() <= 0.5 + 1e-6
    steps = (2 * np.abs(codes) + 1) * table.scales / 2  # half the distance to the next code
    assert (np.abs(codes * np.abs(codes) * table.scales - exact) <= steps * 1.01).all()


def test_small_weights_survive_a_large_one(tmp_path: Path) -> None:
    made = student(2, 2**14)
    table = network_of(made).table
    ids = pad(encode(made.tokenizer, TEXTS), PAD_ID)[0]
    never_met = min({*range(1, 2**14)} - {*table_rows(ids, 2**14).unique().tolist()})
    table.data[never_met, 1] = 50 * table.data[:, 1].abs().max()
    write_int8(network_of(made), tmp_path / "model.onnx")
    exact = made.predict_logits(TEXTS)
    assert np.abs(run(tmp_path / "model.onnx", ids.numpy()) - exact).mean() < 0.15 * exact.std()


def test_an_untrained_student_can_be_written(tmp_path: Path) -> None:
    made = student(2)
    network_of(made).table.data[:] = 0
    written("onnx-int8", made, evidence(made, ["sea", ""]), tmp_path / "made")
    found = exporter("onnx-int8").load(tmp_path / "made").predict_logits(["sea", ""])
    np.testing.assert_allclose(found, made.predict_logits(["sea", ""]), atol=1e-6)


@WORD_ROWS
@pytest.mark.parametrize("target", ["onnx-fp32", "onnx-int8"])
@pytest.mark.parametrize("labels", [2, 7])
def test_predictions_do_not_depend_on_batch_composition(
    tmp_path: Path, target: str, labels: int, word_rows: int
) -> None:
    made = student(labels, word_rows=word_rows)
    model = exporter(target).load(package_of(made, target, tmp_path / "package"))
    texts = [*ODD_TEXTS, "", *TEXTS[:30]]
    alone = np.concatenate([model.predict_logits([text]) for text in texts])
    for batch_size in (1, 2, 7, 100):
        np.testing.assert_allclose(model.predict_logits(texts, batch_size), alone, atol=1e-6)
        np.testing.assert_allclose(model.predict_proba(texts, batch_size).sum(axis=1), 1, atol=1e-6)
    one_by_one = np.concatenate([model.predict_proba([text]) for text in texts])
    assert one_by_one.dtype == np.float32
    np.testing.assert_allclose(model.predict_proba(texts), one_by_one, atol=1e-7)
    np.testing.assert_allclose(one_by_one, made.predict_proba(texts), atol=1e-5 if target == "onnx-fp32" else 0.05)
    assert model.predict_proba([]).shape == (0, labels)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Model:
    made = student()
    tokenizer = character_tokenizer([*TEXTS, "🙂\U000e0041ß"])
    folder = package_of(replace(made, tokenizer=tokenizer), "onnx-fp32", tmp_path_factory.mktemp("loaded") / "package")
    return load(folder, verify=False)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "▁", "▁a▁▁b▁", "[PAD] [UNK]", "\x00", "\u200b\u200d", "İıΣςΑΣ", "ß🙂", "\U0010ffff\U000e0041", "\r\n",
        "\u09df\u09af\u09bc e\u0301é", "a" * 1021, "a" * 1022, "a" * 1023, " ক" * 600, "\ufeff" * 2000, "ﷺ\ufdfa\u0344",
        *ODD_TEXTS,
    ],
)  # fmt: skip
def test_fast_encoding_matches_the_tokenizer(loaded: Model, text: str) -> None:
    assert loaded.encode([text])[0].tolist() == loaded.tokenizer.encode(text).ids


def test_fast_encoding_matches_the_tokenizer_for_random_texts(loaded: Model) -> None:
    dice = np.random.default_rng(0)
    pools = [
        (0, 0x80),
        (0x80, 0x250),
        (0x300, 0x370),
        (0x980, 0xA00),
        (0x2000, 0x2070),
        (0, 0xD800),
        (0xE000, 0x110000),
    ]
    for _ in range(1500):
        chosen = [pools[i] for i in dice.integers(0, len(pools), 5)]
        parts = [dice.integers(first, end, size=int(dice.integers(1, 9))) for first, end in chosen]
        text = "".join(map(chr, np.concatenate(parts).tolist()))
        assert loaded.encode([text])[0].tolist() == loaded.tokenizer.encode(text).ids, ascii(text)


def test_other_tokenizers_do_not_use_fast_encoding(tmp_path: Path, learned: Classifier) -> None:
    model = transformer_loader.load(package_of(learned, "onnx-fp32", tmp_path / "package"), verify=False)
    alone = np.concatenate([model.predict_logits([text]) for text in ODD_TEXTS])
    np.testing.assert_allclose(alone, learned.predict_logits(ODD_TEXTS), atol=1e-4)
    np.testing.assert_allclose(model.predict_logits(ODD_TEXTS, batch_size=4), alone, atol=1e-4)


@pytest.mark.parametrize("target", ["onnx-fp32", "onnx-int8"])
def test_a_package_reads_a_long_text_to_its_end(tmp_path: Path, target: str) -> None:
    made = student(3)
    network_of(made).table.data[:, 1:] = network_of(made).table.data[:, 1:].abs()  # so that sums grow with the text
    model = exporter(target).load(package_of(made, target, tmp_path / "package"))
    texts = [TEXTS[0] * 4000 + end for end in ("sea", "sun")]
    found, expected = model.predict_logits(texts), made.predict_logits(texts)
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found, expected, rtol=1e-5 if target == "onnx-fp32" else 0.02)


def test_the_loader_truncates_for_an_older_package(tmp_path: Path) -> None:
    made = student()
    made.tokenizer.enable_truncation(max_length=1024)
    model = exporter("onnx-fp32").load(package_of(made, "onnx-fp32", tmp_path / "package"))
    np.testing.assert_allclose(model.predict_logits(["a b" * 9000]), made.predict_logits(["a b" * 9000]), atol=1e-4)
    assert np.array_equal(model.predict_logits(["a" * 1022]), model.predict_logits(["a" * 1023]))


@pytest.mark.parametrize("target", ["onnx-fp32", "onnx-int8"])
def test_a_package_needs_only_its_requirements(tmp_path: Path, target: str) -> None:
    made = student()
    folder = package_of(made, target, tmp_path / "package")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config == {
        "model_type": "ngram", "rows": 4096, "outputs": 1, "id2label": {"0": "label 0", "1": "label 1"},
        "label2id": {"label 0": 0, "label 1": 1}, "max_length": None, "threshold": 0.4, "offsets": None,
        "transformers.js_config": {"dtype": "fp32"},
    }  # fmt: skip
    script = (
        "import sys, json, how_to_load as m; model = m.load(verify=False); texts = json.loads(sys.argv[1]); "
        "print(json.dumps([model.predict_proba(texts).tolist(), model.predict(texts), sorted(sys.modules)]))"
    )
    environment = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", script, json.dumps(DEMO_SENTENCES)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    probabilities, answers, modules = json.loads(done.stdout)
    expected = made.predict_proba(DEMO_SENTENCES)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5 if target == "onnx-fp32" else 0.05)
    assert [label for label, _ in answers] == [made.labels[yes >= 0.4] for _, yes in probabilities]
    used = {name.split(".")[0] for name in modules}
    assert not used & {"torch", "transformers", "toolkit", "exporters", "benchmarks", "optimum", "onnx", "scipy"}


def test_a_checkpoint_becomes_a_package_that_verifies(workplace: Path) -> None:
    save_classifier(replace(student(), labels=("non_hate", "hate")), workplace / "checkpoint")
    data = CorpusSettings(data="comments.csv", folds=2)
    outcome = compress_checkpoint("checkpoint", data, ExportSettings("onnx-int8"), None, force=False)
    assert outcome.package is not None
    found = package.verify(outcome.package)
    assert found.problems == []
    assert found.largest_score_gap < 1e-6
    model, own = package.load(outcome.package), load_classifier(workplace / "checkpoint")
    yes = own.predict_proba(TEXTS)[:, 1]
    assert [label for label, _ in model.predict(TEXTS)] == [own.labels[int(each >= 0.4)] for each in yes]
    assert "a C compiler" in (outcome.package / "README.md").read_text("utf-8")
    assert package.load(outcome.package).labels == ("non_hate", "hate")

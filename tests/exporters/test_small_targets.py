"""onnx-fp16 and onnx-int4: the stored precision, and the logits computed from it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from exporters.int8_graph import part_name, table_nodes, weight_nodes
from exporters.onnx_fp16 import LEAST_VALUES, halve_weights
from exporters.onnx_fp32 import export_graph
from exporters.onnx_int4 import pack, quantize_matrices
from exporters.registry import Candidate, Evidence, Exporter, LoadedArtifact, exporter
from tests.helpers import ODD_TEXTS
from toolkit.config.settings import ExportSettings, ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.ngram import PAD_ID, NgramConfig, NgramNetwork, character_tokenizer
from toolkit.modeling.tokenizer import save_tokenizer
from toolkit.package import write_loading_files
from toolkit.utils.errors import InputError

MODEL = "onnx/model.onnx"
FP16, INT4 = exporter("onnx-fp16"), exporter("onnx-int4")


def reference_of(classifier: Classifier, folder: Path) -> Path:
    """The artifact of onnx-fp32."""
    (folder / MODEL).parent.mkdir(parents=True)
    export_graph(classifier, folder / MODEL)
    return folder


def candidates_of(target: Exporter, classifier: Classifier, reference: Path) -> list[Candidate]:
    evidence = Evidence([], [], np.empty(0, dtype=int), classifier.rule or DecisionRule())
    return target.candidates(classifier, evidence, ExportSettings(), reference)


def write(
    target: Exporter, classifier: Classifier, reference: Path, choice: int, *in_float: str
) -> tuple[Path, LoadedArtifact]:
    """Model file and predictor of one candidate."""
    folder = reference.with_name(f"{target.name}-{choice}")
    (folder / MODEL).parent.mkdir(parents=True)
    candidates_of(target, classifier, reference)[choice].write(folder, frozenset(in_float))
    save_tokenizer(classifier.tokenizer, classifier.pad_id, folder / "tokenizer.json")
    write_loading_files(folder, classifier, classifier.rule or DecisionRule(), target)
    return folder / MODEL, target.load(folder)


def ngram_student() -> Classifier:
    """Random weights, 4,096 rows."""
    network = NgramNetwork(NgramConfig(4096, 1))
    dice = np.random.default_rng(0)
    table = np.concatenate([dice.uniform(1, 90, (4096, 1)), dice.standard_t(3, (4096, 1))], axis=1)
    table[0] = 0
    network.table.data = torch.from_numpy(table.astype(np.float32))
    return Classifier(network.eval(), character_tokenizer(ODD_TEXTS), PAD_ID, ("no", "yes"), DecisionRule(0.4))


def with_halved_weights(classifier: Classifier) -> Classifier:
    halved = copy.deepcopy(classifier)
    for weight in halved.network.parameters():
        if weight.numel() >= LEAST_VALUES:
            weight.data = weight.data.half().float()
    return halved


@pytest.fixture(scope="module")
def wide(toy: Corpus) -> Classifier:
    """Random weights, mostly in matrices."""
    settings = ModelSettings(model="shape:2x128", pooling="mean", max_length=32)
    return build_classifier(settings, toy.label_names, toy.take(toy.rows("train")), seed=0)


# -- half precision -------------------------------------------------------------------------------------------------


def test_fp16_computes_in_single_precision_with_weights_rounded_to_half(learned: Classifier, tmp_path: Path) -> None:
    _, model = write(FP16, learned, reference_of(learned, tmp_path / "single"), 0)
    for text in ODD_TEXTS:
        found = model.predict_logits([text])
        np.testing.assert_allclose(found, learned.predict_logits([text]), atol=1e-2)
        np.testing.assert_allclose(found, with_halved_weights(learned).predict_logits([text]), atol=1e-4)


def test_fp16_is_half_the_size(wide: Classifier, tmp_path: Path) -> None:
    reference = reference_of(wide, tmp_path / "single")
    file, _ = write(FP16, wide, reference, 0)
    assert 0.48 < file.stat().st_size / (reference / MODEL).stat().st_size < 0.55


def test_fp16_supports_an_ngram_student(tmp_path: Path) -> None:
    student = ngram_student()
    reference = reference_of(student, tmp_path / "single")
    file, model = write(FP16, student, reference, 0)
    halved = with_halved_weights(student)
    for text in ODD_TEXTS:
        np.testing.assert_allclose(model.predict_logits([text]), halved.predict_logits([text]), atol=1e-4)
    table = {tensor.name: tensor for tensor in onnx.load(str(file)).graph.initializer}["table_half"]
    assert table.data_type == TensorProto.FLOAT16


def test_a_session_folds_the_casts_of_weights_when_it_loads(wide: Classifier, tmp_path: Path) -> None:
    file, _ = write(FP16, wide, reference_of(wide, tmp_path / "single"), 0)
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in onnx.load(str(file)).graph.initializer}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(str(tmp_path / "loaded.onnx")).graph
    weights = {tensor.name for tensor in loaded.initializer}
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in loaded.initializer}
    assert not [node for node in loaded.node if node.op_type == "Cast" and node.input[0] in weights]


@pytest.mark.parametrize(
    ("value", "size", "kind"),
    [
        (1.0, LEAST_VALUES, TensorProto.FLOAT16),
        (1.0, LEAST_VALUES - 1, TensorProto.FLOAT),
        (65504.0, LEAST_VALUES, TensorProto.FLOAT16),
        (65505.0, LEAST_VALUES, TensorProto.FLOAT),
        (-1e30, LEAST_VALUES, TensorProto.FLOAT),
        (np.inf, LEAST_VALUES, TensorProto.FLOAT),
    ],
)
def test_small_weights_and_those_out_of_range_stay_in_float32(value: float, size: int, kind: int) -> None:
    weight = np.full(size, 0.5, dtype=np.float32)
    weight[7] = value
    model = model_of([helper.make_node("Mul", ["x", "w"], ["logits"], "product")], {"w": weight}, size)
    too_large = halve_weights(model.graph)
    assert model.graph.initializer[0].data_type == kind
    assert too_large == (["w"] if abs(value) > 65504 else [])
    np.testing.assert_array_equal(run(model, np.ones((1, size)))[0], weight)


def test_a_weight_shared_by_two_nodes_is_stored_once(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "a"),
        helper.make_node("MatMul", ["y", "w"], ["logits"], "b"),
    ]
    model = model_of(nodes, {"w": weight}, 16)
    halve_weights(model.graph)
    assert [tensor.name for tensor in model.graph.initializer] == ["w_half"]
    x = np.random.default_rng(1).normal(size=(3, 16))
    half = weight.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(run(model, x), x @ half @ half, atol=1e-4)


# -- four bits ------------------------------------------------------------------------------------------------------


def model_of(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], width: int) -> onnx.ModelProto:
    """A graph from x float32 (rows, width) to logits."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"x": x.astype(np.float32)})[0]


def by_hand(codes: np.ndarray, scales: np.ndarray, outputs: int, inputs: int) -> np.ndarray:
    """Return the weights in the packed bytes, decoded one at a time: (outputs, inputs)."""
    found = np.zeros((outputs, inputs))
    block = 2 * codes.shape[2]
    for row in range(outputs):
        for column in range(inputs):
            byte = int(codes[row, column // block, column % block // 2])
            code = byte & 15 if column % 2 == 0 else byte >> 4
            found[row, column] = (code - 8) * scales.reshape(outputs, -1)[row, column // block]
    return found


def whole_numbers(rows: int, width: int) -> np.ndarray:
    """Return activations that int8 represents exactly for any block size: each block contains 127."""
    x = np.random.default_rng(5).integers(-127, 128, (rows, width)).astype(np.float64)
    x[:, ::16] = 127
    return x


@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("inputs", [1, 31, 32, 33, 128, 200])
def test_an_int4_weight_is_within_half_a_step(inputs: int, block: int) -> None:
    matrix = np.random.default_rng(inputs).standard_t(3, (9, inputs)).astype(np.float32)
    codes, scales = pack(matrix, block)
    assert codes.dtype == np.uint8
    assert codes.shape == (9, -(-inputs // block), block // 2)
    assert scales.dtype == np.float32
    assert scales.shape == codes.shape[:2]
    found = by_hand(codes, scales, 9, inputs)
    for start in range(0, inputs, block):
        here = slice(start, start + block)
        reach = np.abs(matrix[:, here]).max(axis=1, keepdims=True)
        assert (np.abs(found - matrix)[:, here] <= reach / 14 + 1e-6).all()


def test_a_matrix_of_zeros_stays_zero() -> None:
    codes, scales = pack(np.zeros((3, 40), dtype=np.float32), 32)
    np.testing.assert_array_equal(by_hand(codes, scales, 3, 40), np.zeros((3, 40)))


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Gemm turned"])
@pytest.mark.parametrize("block", [32, 128])
@pytest.mark.parametrize("inputs", [8, 32, 100, 257])
def test_the_runtime_decodes_the_packed_bytes(kind: str, block: int, inputs: int) -> None:
    dice = np.random.default_rng(inputs)
    matrix, bias, head = dice.normal(size=(inputs, 24)), dice.normal(size=24), np.eye(24)
    stored = matrix.T if kind == "Gemm turned" else matrix
    node = (
        helper.make_node("MatMul", ["x", "w"], ["hidden"], "layer")
        if kind == "MatMul"
        else helper.make_node("Gemm", ["x", "w", "bias"], ["hidden"], "layer", transB=int(kind == "Gemm turned"))
    )
    last = helper.make_node("Gemm", ["hidden", "head"], ["logits"], "head")
    model = model_of([node, last], {"w": stored, "bias": bias, "head": head}, inputs)
    quantize_matrices(model, block, frozenset())
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    codes, scales = next((found[n.input[1]], found[n.input[2]]) for n in model.graph.node if n.op_type == "MatMulNBits")
    x = whole_numbers(5, inputs)
    expected = x @ by_hand(codes, scales, 24, inputs).T + (0 if kind == "MatMul" else bias)
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("more", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}])
def test_a_gemm_with_other_attributes_stays(more: dict[str, Any]) -> None:
    weights = {"w": np.random.default_rng(0).normal(size=(64, 64)), "bias": np.ones(64), "head": np.eye(64)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "bias"], ["hidden"], "layer", **more),
        helper.make_node("Gemm", ["hidden", "head"], ["logits"], "head"),
    ]
    model = model_of(nodes, weights, 64)
    quantize_matrices(model, 32, frozenset())
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Gemm"]


def test_layers_that_share_a_matrix_share_its_bytes() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "a"),
        helper.make_node("MatMul", ["y", "w"], ["z"], "b"),
        helper.make_node("Gemm", ["z", "head"], ["logits"], "head"),
    ]
    model = model_of(nodes, {"w": np.random.default_rng(0).normal(size=(64, 64)), "head": np.eye(64)}, 64)
    quantize_matrices(model, 32, frozenset())
    assert len([tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.UINT8]) == 1
    assert np.isfinite(run(model, np.ones((2, 64)))).all()


@pytest.mark.parametrize("choice", [0, 1])
def test_int4_classifies_the_toy_corpus(learned: Classifier, toy: Corpus, tmp_path: Path, choice: int) -> None:
    _, model = write(INT4, learned, reference_of(learned, tmp_path / "single"), choice)
    texts = toy.take(toy.rows("test"))
    expected = learned.predict_proba(texts)[:, 1] >= learned.threshold
    found = [learned.labels.index(label) for label, _ in model.predict(texts)]
    assert 0.2 < np.mean(expected) < 0.8
    assert np.mean(found == expected) > 0.9


@pytest.mark.parametrize("choice", [0, 1])
def test_int4_predictions_do_not_depend_on_batch_composition(learned: Classifier, tmp_path: Path, choice: int) -> None:
    _, model = write(INT4, learned, reference_of(learned, tmp_path / "single"), choice)
    alone = model.predict_logits(ODD_TEXTS)
    np.testing.assert_allclose(model.predict_logits(ODD_TEXTS, batch_size=len(ODD_TEXTS)), alone, atol=1e-4)


@pytest.mark.parametrize(("choice", "bits"), [(0, 5), (1, 4.25)])
def test_matrices_take_four_bits_per_weight_and_a_scale_per_block(
    wide: Classifier, tmp_path: Path, choice: int, bits: float
) -> None:
    reference = reference_of(wide, tmp_path / "single")
    file, _ = write(INT4, wide, reference, choice)
    before = {tensor.name: tensor for tensor in onnx.load(str(reference / MODEL)).graph.initializer}
    after = {tensor.name: tensor for tensor in onnx.load(str(file)).graph.initializer}
    matrices = {node.input[1] for node in onnx.load(str(reference / MODEL)).graph.node if node.op_type == "MatMul"}
    weights = sum(int(np.prod(before[name].dims)) for name in matrices if name in before)
    packed = [
        name for node in onnx.load(str(file)).graph.node if node.op_type == "MatMulNBits" for name in node.input[1:]
    ]
    taken = sum(len(after[name].raw_data) for name in packed)
    assert len(packed) == 2 * 2 * 6
    assert taken == weights * bits / 8
    assert not matrices & after.keys()
    assert file.stat().st_size < 0.3 * (reference / MODEL).stat().st_size


@pytest.mark.parametrize("choice", [0, 1])
def test_named_parts_and_the_head_stay_in_float(wide: Classifier, tmp_path: Path, choice: int) -> None:
    reference = reference_of(wide, tmp_path / "single")
    before = onnx.load(str(reference / MODEL)).graph
    products = {part_name(node): node for node in weight_nodes(before)}
    parts = candidates_of(INT4, wide, reference)[choice].parts
    assert len(products) == 2 * 6
    assert parts == (*map(part_name, table_nodes(before)), *products)
    left = (parts[0], *list(products)[1::3])
    file, _ = write(INT4, wide, reference, choice, *left)
    after = onnx.load(str(file)).graph
    made = {node.output[0]: node for node in after.node}
    stored = {tensor.name: tensor for tensor in after.initializer}
    for name, node in products.items():
        assert (made[node.output[0]].op_type == "MatMulNBits") == (name not in left)
    for node in (*(products[name] for name in left[1:]), made["logits"]):
        assert stored[node.input[1]].data_type == TensorProto.FLOAT
    assert stored[table_nodes(before)[0].input[0]].data_type == TensorProto.FLOAT


def test_with_every_part_in_float_nothing_is_lost(learned: Classifier, tmp_path: Path) -> None:
    reference = reference_of(learned, tmp_path / "single")
    _, model = write(INT4, learned, reference, 0, *candidates_of(INT4, learned, reference)[0].parts)
    np.testing.assert_allclose(model.predict_logits(ODD_TEXTS), learned.predict_logits(ODD_TEXTS), atol=1e-4)


def test_an_ngram_student_is_refused_in_one_line(tmp_path: Path) -> None:
    student = ngram_student()
    with pytest.raises(InputError) as caught:
        candidates_of(INT4, student, reference_of(student, tmp_path / "single"))
    assert (
        str(caught.value) == "--target onnx-int4: an ngram student has no matrices to quantize; use --target onnx-int8"
    )


@pytest.mark.parametrize("target", [FP16, INT4])
def test_both_promise_a_smaller_size(target: Exporter) -> None:
    assert (target.promise, target.reference, target.file) == ("smaller", "onnx-fp32", MODEL)
    assert target.available() is None
    assert target.distributions[0] == "onnxruntime"
    assert "\n" not in target.summary

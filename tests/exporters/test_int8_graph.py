"""The rewritten graphs against ONNX Runtime's own quantizers and against integer arithmetic in NumPy."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import HistogramCollector

from exporters.calibration import BINS, PERCENTILE, Activations, Method, Recorder, calibrate
from exporters.int8_graph import (
    STATIC,
    Scheme,
    part_name,
    parts_of,
    quantize_tables,
    smoothing,
    table_nodes,
    weight_nodes,
)
from exporters.onnx_fp32 import export_graph
from exporters.onnx_int8 import fuse, schemes, write_scheme
from tests.toolkit.modeling.test_architecture import LENGTH, network_of
from toolkit.data.corpus import Corpus
from toolkit.modeling.classifier import Classifier, pad
from toolkit.modeling.surgery import Kept, cut
from toolkit.modeling.tokenizer import PAD, encode, train_tokenizer
from toolkit.utils.machine import describe_machine

Seen = Callable[[Scheme], dict[str, Activations]]
"""The activations of a graph, with the ranges of a scheme."""
WIDTH, COLUMNS = 24, 10
ALL = list(
    dict.fromkeys(
        [*schemes("full", ("avx2",)), *(replace(scheme, reduced=False) for scheme in schemes("full", ("avx2",)))]
    )
)
VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"} & set(describe_machine().flags)


def saturates(scheme: Scheme) -> bool:
    """Whether the processor adds the products of this scheme in 16 bits, which can overflow."""
    return not VNNI and scheme.inputs == "uint8" and scheme.weights == "int8" and not scheme.reduced


def run(file: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def product(file: Path, weight: np.ndarray, bias: np.ndarray | None, gemm: bool = False) -> Path:
    """A graph x @ weight + bias, then the identity, so that the product does not give the graph's output itself."""
    constants = [numpy_helper.from_array(weight.T.copy() if gemm else weight, "w")]
    constants += [] if bias is None else [numpy_helper.from_array(bias, "b")]
    inputs = ["x", "w", *([] if bias is None else ["b"])]
    if gemm:
        nodes = [helper.make_node("Gemm", inputs, ["y"], name="the/Gemm", transB=1)]
    else:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["p" if bias is not None else "y"], name="the/MatMul")]
        nodes += [] if bias is None else [helper.make_node("Add", ["b", "p"], ["y"])]
    nodes.append(helper.make_node("Identity", ["y"], ["out"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, WIDTH])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, COLUMNS])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
    return file


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    dice = np.random.default_rng(0)
    return (dice.normal(size=(40, WIDTH)) * np.geomspace(0.1, 10, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(WIDTH, COLUMNS)).astype(np.float32)


def seen_in(x: np.ndarray, method: Method = "minmax") -> dict[str, Activations]:
    recorder = Recorder(method)
    recorder.record(x)
    return {"x": recorder.activations()}


def by_hand(x: np.ndarray, weight: np.ndarray, scheme: Scheme) -> np.ndarray:
    """The same product in integer arithmetic and double precision."""
    w, a = weight.astype(np.float64), x.astype(np.float64)
    if scheme.method == "smoothed":
        factors = smoothing(seen_in(x)["x"], [w])
        w, a = w * factors[:, None], a / factors
    signed = scheme.inputs == "int8"
    if scheme.method == "per token":
        scale, zero = np.abs(a).max(axis=1, keepdims=True) / 127, 0.0 if signed else 128.0
    else:
        low, high = (a.min(), a.max()) if scheme.ranges == "minmax" else seen_in(x, scheme.ranges)["x"].range
        scale = max(-low, high) / 127 if signed else (max(high, 0) - min(low, 0)) / 255
        zero = 0.0 if signed else np.rint(-min(low, 0) / scale)
    codes = np.clip(np.rint(a / scale) + zero, -128 if signed else 0, 127 if signed else 255) - zero
    reach = 63 if scheme.reduced else 127
    steps = np.abs(w).max(axis=0 if scheme.per_column else None) / reach
    return codes @ np.rint(w / steps) * scale * steps


@pytest.mark.parametrize("scheme", ALL, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_product_matches_integer_arithmetic(
    tmp_path: Path, x: np.ndarray, weight: np.ndarray, scheme: Scheme, with_bias: bool
) -> None:
    if saturates(scheme):
        pytest.skip("x86 without VNNI: 16-bit sums saturate, which is why seven bits are the default")
    bias = np.arange(COLUMNS, dtype=np.float32) if with_bias else None
    reference = product(tmp_path / "single.onnx", weight, bias)
    write_scheme(reference, scheme, seen_in(x), tmp_path / "int8.onnx")
    expected = by_hand(x, weight, scheme) + (0 if bias is None else bias)
    found = run(tmp_path / "int8.onnx", {"x": x})
    # A value halfway between two codes may be rounded either way in single precision: a step of one channel.
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert np.abs(found - expected).mean() < 1e-3 * np.abs(expected).max()
    assert "w" not in {tensor.name for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer}


@pytest.mark.parametrize("method", ["smoothed", "per token", "dynamic"])
def test_a_gemm_with_a_transposed_matrix_is_equivalent(
    tmp_path: Path, x: np.ndarray, weight: np.ndarray, method: str
) -> None:
    bias = np.arange(COLUMNS, dtype=np.float32)
    for gemm in (False, True):
        reference = product(tmp_path / f"{gemm}.onnx", weight, bias, gemm)
        write_scheme(reference, Scheme(method), seen_in(x), tmp_path / f"{gemm}-int8.onnx")  # type: ignore[arg-type]
    first, second = (run(tmp_path / f"{gemm}-int8.onnx", {"x": x}) for gemm in (False, True))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def test_smoothing_reduces_the_error_of_outlier_channels(tmp_path: Path, weight: np.ndarray) -> None:
    """With one channel a hundred times as large, the others have only two codes without smoothing."""
    x = np.random.default_rng(3).normal(size=(40, WIDTH)).astype(np.float32)
    x[:, 5] *= 100
    reference = product(tmp_path / "single.onnx", weight, None)
    quiet = weight.copy()
    quiet[5] = 0  # only the other channels contribute
    errors = {}
    for method in ("minmax", "smoothed"):
        write_scheme(product(tmp_path / "q.onnx", quiet, None), Scheme(method), seen_in(x), tmp_path / f"{method}.onnx")  # type: ignore[arg-type]
        errors[method] = np.abs(run(tmp_path / f"{method}.onnx", {"x": x}) - x @ quiet).mean()
    assert errors["smoothed"] < 0.1 * errors["minmax"]
    assert reference.is_file()


def test_dynamic_matches_onnx_runtimes_quantizer(tmp_path: Path, x: np.ndarray, weight: np.ndarray) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    reference = product(tmp_path / "single.onnx", weight, None)
    quantize_dynamic(reference, tmp_path / "theirs.onnx", per_channel=True, weight_type=QuantType.QInt8)
    write_scheme(reference, Scheme("dynamic"), {}, tmp_path / "ours.onnx")
    ours, theirs = (run(tmp_path / f"{name}.onnx", {"x": x}) for name in ("ours", "theirs"))
    assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()


@pytest.fixture(scope="module")
def reference(learned: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("single") / "model.onnx"
    export_graph(learned, file)
    return file


@pytest.fixture(scope="module")
def seen(learned: Classifier, toy: Corpus, reference: Path) -> Seen:
    names = [node.input[0] for node in weight_nodes(onnx.load(reference).graph)]
    return cache(lambda scheme: calibrate(reference, encode(learned.tokenizer, toy.texts[:32]), names, scheme.ranges))


def logits(file: Path, made: Classifier, texts: list[str], batch: int = 1) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = []
    encoded = encode(made.tokenizer, texts)
    for start in range(0, len(texts), batch):
        ids, mask = pad(encoded[start : start + batch], made.pad_id)
        found.append(session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0])
    return np.concatenate(found)


@pytest.mark.parametrize("scheme", ALL, ids=lambda scheme: scheme.name)
def test_every_scheme_agrees_with_torch(
    learned: Classifier, toy: Corpus, reference: Path, seen: Seen, scheme: Scheme, tmp_path: Path
) -> None:
    write_scheme(reference, scheme, seen(scheme), tmp_path / "model.onnx")
    texts = toy.texts[100:160]
    found, exact = logits(tmp_path / "model.onnx", learned, texts), learned.predict_logits(texts)
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).mean() >= 0.9
    assert np.abs(found - exact).mean() > 0


@pytest.mark.parametrize("method", [*STATIC, "per token"])
def test_logits_do_not_depend_on_batch_composition_unless_dynamic(
    learned: Classifier, toy: Corpus, reference: Path, seen: Seen, method: str, tmp_path: Path
) -> None:
    texts = [text + " and more" * (i % 5) for i, text in enumerate(toy.texts[:64])]
    moved = {}
    for each in (method, "dynamic"):
        write_scheme(reference, Scheme(each), seen(Scheme(each)), tmp_path / f"{each}.onnx")  # type: ignore[arg-type]
        moved[each] = np.abs(
            logits(tmp_path / f"{each}.onnx", learned, texts, 64) - logits(tmp_path / f"{each}.onnx", learned, texts)
        ).max()
    assert moved[method] < 1e-5
    assert moved["dynamic"] > 1e-4 > 10 * moved[method]


def test_named_parts_stay_in_float(
    learned: Classifier, toy: Corpus, reference: Path, seen: Seen, tmp_path: Path
) -> None:
    graph = onnx.load(reference).graph
    parts = parts_of(graph)
    assert len(parts) == len(set(parts)) == 6 + len(table_nodes(graph))
    assert "encoder/encoder/layer.0/output/dense" in parts
    assert not any("head" in part for part in parts)
    texts = toy.texts[:40]
    exact = logits(reference, learned, texts)
    write_scheme(reference, Scheme("minmax"), seen(Scheme("minmax")), tmp_path / "none.onnx", frozenset(parts))
    np.testing.assert_allclose(logits(tmp_path / "none.onnx", learned, texts), exact, atol=1e-5)
    for part in parts:
        write_scheme(
            reference, Scheme("minmax"), seen(Scheme("minmax")), tmp_path / "one.onnx", frozenset(parts) - {part}
        )
        left = {part_name(node) for node in weight_nodes(onnx.load(tmp_path / "one.onnx").graph)}
        left |= {part_name(node) for node in table_nodes(onnx.load(tmp_path / "one.onnx").graph)}
        assert left & set(parts) == set(parts) - {part}
        assert np.abs(logits(tmp_path / "one.onnx", learned, texts) - exact).max() > 0


def test_table_rows_are_within_half_a_quantization_step(tmp_path: Path) -> None:
    table = (np.random.default_rng(0).normal(size=(100, 8)) * np.geomspace(0.01, 100, 100)[:, None]).astype(np.float32)
    table[7] = 0
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "ids"], ["out"], name="words/Gather")],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [None])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 8])],
        [numpy_helper.from_array(table, "t")],
    )
    quantize_tables(graph, frozenset())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "t.onnx"))
    found = run(tmp_path / "t.onnx", {"ids": np.arange(100)})
    steps = np.abs(table).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - table) <= steps / 2 * 1.001).all()


def test_a_fused_graph_is_the_same_classifier_and_can_be_quantized(
    learned: Classifier, toy: Corpus, reference: Path, tmp_path: Path
) -> None:
    fuse(reference, tmp_path / "fused.onnx")
    texts = toy.texts[:40]
    graph = onnx.load(tmp_path / "fused.onnx").graph
    assert len(graph.node) < 0.6 * len(onnx.load(reference).graph.node)
    np.testing.assert_allclose(
        logits(tmp_path / "fused.onnx", learned, texts), logits(reference, learned, texts), atol=1e-4
    )
    assert len(weight_nodes(graph)) == 6
    write_scheme(tmp_path / "fused.onnx", Scheme("per token"), {}, tmp_path / "int8.onnx")
    found = logits(tmp_path / "int8.onnx", learned, texts)
    assert (found.argmax(axis=1) == learned.predict_logits(texts).argmax(axis=1)).mean() >= 0.9


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_attention_of_a_pruned_network_is_fused_with_the_heads_of_each_layer(
    kind: str, toy: Corpus, tmp_path: Path
) -> None:
    tokenizer = train_tokenizer(toy.texts, LENGTH)
    network = network_of(kind, tokenizer.get_vocab_size(), tokenizer.token_to_id(PAD))
    made = Classifier(network, tokenizer, tokenizer.token_to_id(PAD), ("a", "b"))
    heads = [(0, 2), (3,), (0, 1, 3)]
    cut(network, [Kept(each, tuple(range(40))) for each in heads])
    export_graph(made, tmp_path / "single.onnx")
    fuse(tmp_path / "single.onnx", tmp_path / "fused.onnx")
    fused = [node for node in onnx.load(tmp_path / "fused.onnx").graph.node if node.op_type == "MultiHeadAttention"]
    counted = [helper.get_attribute_value(a) for node in fused for a in node.attribute if a.name == "num_heads"]
    assert counted == list(map(len, heads))
    texts = [*toy.texts[:20], "sea"]
    found = logits(tmp_path / "fused.onnx", made, texts, 7)
    np.testing.assert_allclose(found, made.predict_logits(texts), atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "best"),
    [
        (("avx2", "avx512_vnni"), "static, smoothed, U8S8, 7-bit weights"),
        (("avx2", "avx_vnni"), "static, smoothed, U8S8, 7-bit weights"),
        (("avx2",), "static, smoothed, U8S8, 7-bit weights"),
        ((), "static, smoothed, U8S8, 7-bit weights"),
        (("asimd", "asimddp"), "static, smoothed, S8S8, 7-bit weights"),
    ],
)
def test_the_processor_decides_which_codes_come_first(flags: tuple[str, ...], best: str) -> None:
    for search in ("off", "fast", "full"):
        assert schemes(search, flags)[0].name == best
    assert len(schemes("off", flags)) == 1
    assert len({scheme.name for scheme in schemes("full", flags)}) == len(schemes("full", flags)) > 30
    assert all(scheme.reduced for scheme in schemes("full", flags))
    assert schemes("off", flags, this_cpu_only=True) == [replace(schemes("off", flags)[0], reduced=False)]
    assert set(schemes("fast", flags)) < set(schemes("fast", flags, this_cpu_only=True))
    methods = {scheme.method for scheme in schemes("fast", flags)}
    assert methods == {"smoothed", "minmax", "percentile", "per token", "dynamic"}


@pytest.mark.parametrize(
    ("method", "name"), [("percentile", "Percentile"), ("entropy", "Entropy"), ("minmax", "MinMax")]
)
def test_ranges_are_those_of_onnx_runtimes_calibration(
    tmp_path: Path, x: np.ndarray, method: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter([{"x": x}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    reference = product(tmp_path / "single.onnx", np.eye(WIDTH, COLUMNS, dtype=np.float32), None)
    extra = {"percentile": {"num_bins": 2048, "percentile": 99.99}, "entropy": {"num_bins": 128}, "minmax": {}}[method]
    calibrator = create_calibrator(
        reference, ["MatMul"], str(tmp_path / "a.onnx"), CalibrationMethod[name], extra_options=extra
    )
    calibrator.set_execution_providers(["CPUExecutionProvider"])
    calibrator.collect_data(Rows())
    theirs = calibrator.compute_data()["x"].range_value
    capsys.readouterr()
    ours = seen_in(x, method)["x"].range  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""
    np.testing.assert_allclose(ours, [np.ravel(each)[0] for each in theirs], rtol=2e-3)  # a bin of the histogram


def test_calibration_records_the_input_of_each_product(learned: Classifier, toy: Corpus, reference: Path) -> None:
    """The input of the first product is the embedding, which torch computes, too."""
    name = weight_nodes(onnx.load(reference).graph)[0].input[0]
    encoded = encode(learned.tokenizer, toy.texts[:5])
    found = calibrate(reference, encoded, [name])[name]
    exact = [
        learned.network.encoder.embeddings(pad([ids], learned.pad_id)[0]).detach().numpy()[0]  # type: ignore[union-attr]
        for ids in encoded
    ]
    together = np.concatenate(exact)
    np.testing.assert_allclose(found.low, together.min(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.high, together.max(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.range, (together.min(), together.max()), atol=1e-5)


def made_texts(count: int) -> Iterator[np.ndarray]:
    dice = np.random.default_rng(0)
    for i in range(count):
        yield (dice.normal(size=(20 + i % 7, 64)) * (1 + i % 5)).astype(np.float32)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_ranges_are_those_of_all_texts_together(method: Method) -> None:
    recorder = Recorder(method)
    for text in made_texts(30):
        recorder.record(text)
    found = recorder.activations()
    texts = list(made_texts(30))
    together = np.concatenate(texts)
    np.testing.assert_array_equal(found.low, together.min(axis=0).astype(np.float64))
    np.testing.assert_array_equal(found.high, together.max(axis=0).astype(np.float64))
    expected = (together.min(), together.max())
    if method != "minmax":
        with redirect_stdout(StringIO()):
            collector = HistogramCollector(method, False, BINS[method], 128, PERCENTILE, "same")
            for text in texts:
                collector.collect({"x": [text]})
            expected = collector.compute_collection_result()["x"][:2]
    assert found.range == (float(expected[0]), float(expected[1]))


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_memory_does_not_grow_with_the_number_of_texts(method: Method) -> None:
    def peak(count: int) -> int:
        recorder = Recorder(method)
        recorder.record(next(made_texts(1)))
        tracemalloc.start()
        for text in made_texts(count):
            recorder.record(text)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(200) < peak(20) + 20 * 20 * 64 * 4

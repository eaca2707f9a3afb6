"""Operations and bytes against a hand-computed graph, and a roofline that adds up."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.limit.operations import Work, mean_work, ngram_work, work_at
from benchmarks.limit.operators import sum_events
from benchmarks.limit.parts import graph_parts, installed_bytes
from benchmarks.limit.peaks import Peaks, bandwidth
from benchmarks.limit.roofline import Roofline

ROWS, WIDTH, INNER, LABELS = 50, 8, 16, 4


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table, a product with weights, one of two activations, an int8 one with weights, and one that is fused later."""
    random = np.random.default_rng(0)
    weights = {
        "table": random.normal(size=(ROWS, WIDTH)).astype(np.float32),
        "w": random.normal(size=(WIDTH, INNER)).astype(np.float32),
        "codes": random.integers(-9, 9, (INNER, LABELS)).astype(np.int8),
        "fused_codes": random.integers(-9, 9, (INNER, LABELS)).astype(np.int8),
        "scale": np.float32(0.1),
        "zero": np.uint8(3),
        "w_zero": np.int8(0),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),  # (1, tokens, WIDTH)
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Transpose", ["y"], ["y_t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["y", "y_t"], ["attention"]),
        helper.make_node("DynamicQuantizeLinear", ["y"], ["y_codes", "y_scale", "y_zero"]),
        helper.make_node("MatMulInteger", ["y_codes", "codes", "y_zero"], ["scores"]),
        helper.make_node("QuantizeLinear", ["y", "scale", "zero"], ["y_fixed"]),
        helper.make_node("DequantizeLinear", ["y_fixed", "scale", "zero"], ["y_again"]),
        helper.make_node("DequantizeLinear", ["fused_codes", "scale", "w_zero"], ["fused_w"]),
        helper.make_node("MatMul", ["y_again", "fused_w"], ["logits"]),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])
    outputs = [
        helper.make_tensor_value_info("attention", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("scores", TensorProto.INT32, None),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, None),
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    made = helper.make_graph(nodes, "small", [ids], outputs, stored)
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
    return file


def by_hand(tokens: int) -> Work:
    return Work(
        int8_operations=2 * (2 * tokens * INNER * LABELS),
        fp32_operations=2 * tokens * WIDTH * INNER + 2 * tokens * tokens * INNER,
        weight_bytes=4 * WIDTH * INNER + 2 * INNER * LABELS,
        table_bytes=tokens * WIDTH * 4,
        table_reads=tokens,
    )


def test_work_is_that_computed_by_hand(graph: Path) -> None:
    assert work_at(graph, [1, 7, 30]) == [by_hand(1), by_hand(7), by_hand(30)]


def test_mean_work_is_the_mean_over_the_real_lengths(graph: Path) -> None:
    """Not the work of the mean length: attention grows with the square."""
    lengths = [3, 5, 100]
    found = mean_work(graph, lengths)
    for name in Work.__dataclass_fields__:
        expected = np.mean([getattr(by_hand(each), name) for each in lengths])
        assert getattr(found, name) == pytest.approx(expected), name


def test_sizes_by_part(graph: Path) -> None:
    parts = graph_parts(graph)
    assert parts["embedding"] == 4 * ROWS * WIDTH
    assert parts["encoder"] == 4 * WIDTH * INNER + 2 * INNER * LABELS + 4 + 1 + 1
    assert installed_bytes("numpy") > 2**20
    assert installed_bytes("no-such-distribution") == 0


def test_an_n_gram_model_reads_a_row_for_each_n_gram() -> None:
    space, texts = 2, [[2, 5, 6, 7, 8, 9, 2], [2, 5, 2, 6, 7, 2], [2, 2]]
    count = 0
    for ids in texts:
        for length in range(2, 6):
            grams = [ids[i : i + length] for i in range(len(ids) - length + 1)]
            count += sum(space not in gram[1:-1] for gram in grams)
    found = ngram_work(texts, outputs=3, space_id=space)
    assert found.table_reads == count / 3
    assert found.table_bytes == 64 * found.table_reads
    assert found.int8_operations == 6 * found.table_reads


def test_a_profile_is_summed_by_operator() -> None:
    def event(name: str, operator: str, duration: int) -> dict[str, object]:
        return {"cat": "Node", "name": name, "dur": duration, "args": {"op_name": operator}}

    events = [event("a_kernel_time", "MatMul", 10), event("b_kernel_time", "Add", 30), event("a_fence", "MatMul", 99)]
    events += [event("c_kernel_time", "MatMul", 50), {"cat": "Session", "name": "model_run", "dur": 500, "args": {}}]
    assert sum_events(events, 2) == {"MatMul": 30.0, "Add": 15.0}


PEAKS = Peaks(2e9, "torch", 4e9, "torch", 1e9, 100, 5e9, 10)


@pytest.mark.parametrize("operators", [{"MatMul": 40.0, "Add": 60.0}, {"MatMul": 2.0, "Add": 3.0}, {}])
def test_limit_and_losses_add_up_to_the_time_of_a_text(operators: dict[str, float]) -> None:
    work = Work(int8_operations=8000, fp32_operations=2000, weight_bytes=10_000, table_bytes=5000)
    found = Roofline("x", 1, 10, 5.0, work, PEAKS, 100.0, 50.0, 30.0, operators)
    assert found.compute_us == pytest.approx(2 + 1)
    assert found.limit_us == found.traffic_us == pytest.approx(3)
    assert found.share == pytest.approx(0.03)
    assert found.limit_us + sum(found.losses_us().values()) == pytest.approx(100)


def test_the_other_operators_are_apart_from_the_products() -> None:
    work = Work(fp32_operations=2000)
    found = Roofline("x", 1, 10, 5.0, work, PEAKS, 100.0, 50.0, None, {"Add": 60.0, "MatMul": 40.0})
    losses = found.losses_us()
    assert losses["other operators"] == pytest.approx(30)  # scaled to the run without a profile
    assert losses["products of matrices, beyond the limit"] == pytest.approx(20 - 1)
    assert losses["Python around them"] == pytest.approx(50)


def test_bandwidth_counts_two_reads_and_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.limit.peaks.best_seconds", lambda function: function() is None or 0.5)
    assert bandwidth(1200) == pytest.approx(2400)
    assert all(a < b for a, b in pairwise([bandwidth(1200), bandwidth(2400)]))

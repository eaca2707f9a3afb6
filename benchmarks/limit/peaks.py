"""What this machine can do at most: products of matrices in fp32 and int8, and bytes from memory, on given threads.

Each figure is the best of several repetitions and of the libraries that are installed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

SIDES = (256, 512, 1024)
"""Rows and columns of the square matrices: on some processors the smaller ones, which stay in a cache, are faster."""
SECONDS, LEAST = 0.4, 3
"""Seconds of repetitions of each product or copy, and their least number."""
MEMORY_BYTES = 192 * 2**20
"""Of the three arrays together whose traffic gives the bandwidth of memory: more than the caches of most processors."""


@dataclass(frozen=True)
class Peaks:
    """The best rates found, each with the library that reached it."""

    fp32_ops_s: float
    fp32_by: str
    int8_ops_s: float
    int8_by: str
    memory_bytes_s: float
    memory_state_bytes: int
    """Size of the arrays."""
    weights_bytes_s: float
    """The same for arrays of the size of the artifact, which may stay in a cache."""
    weights_state_bytes: int


def measure_peaks(artifact_bytes: int) -> Peaks:
    """Return the peaks of this process, whose threads are set."""
    fp32 = _fastest({"ONNX Runtime": _onnx_product(np.float32), **_torch_product("fp32")})
    int8 = _fastest({"ONNX Runtime": _onnx_product(np.uint8), **_torch_product("int8")})
    sizes = (MEMORY_BYTES, max(artifact_bytes, 2**16))
    rates = [bandwidth(size) for size in sizes]
    return Peaks(*fp32, *int8, rates[0], sizes[0], max(rates), sizes[1])


def _fastest(found: dict[str, Callable[[int], Callable[[], Any]]]) -> tuple[float, str]:
    """Return the highest number of operations per second, and how it was reached."""
    rates = {}
    for library, make in found.items():
        for side in SIDES:
            rates[f"{library}, {side} × {side}"] = 2 * side**3 / best_seconds(make(side))
    best = max(rates, key=rates.__getitem__)
    return rates[best], best


def best_seconds(function: Callable[[], Any]) -> float:
    """Return the shortest time of a call, after an untimed one."""
    function()
    times: list[float] = []
    stop = time.perf_counter() + SECONDS
    while len(times) < LEAST or time.perf_counter() < stop:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _onnx_product(kind: Any) -> Callable[[int], Callable[[], Any]]:
    """Return a function that makes a product of matrices with ONNX Runtime: fp32, or uint8 by int8."""

    def make(side: int) -> Callable[[], Any]:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        random = np.random.default_rng(0)
        int8 = kind == np.uint8
        left = random.integers(0, 9, (side, side)).astype(kind)
        right = random.integers(-9, 9, (side, side)).astype(np.int8 if int8 else kind)
        types = (TensorProto.UINT8, TensorProto.INT32) if int8 else (TensorProto.FLOAT, TensorProto.FLOAT)
        shapes = [
            helper.make_tensor_value_info(name, type_, [side, side]) for name, type_ in zip("ab", types, strict=True)
        ]
        node = helper.make_node("MatMulInteger" if int8 else "MatMul", ["a", "w"], ["b"])
        graph = helper.make_graph([node], "product", shapes[:1], shapes[1:], [numpy_helper.from_array(right, "w")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads()
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()  # neither input nor output is copied
        binding.bind_ortvalue_input("a", onnxruntime.OrtValue.ortvalue_from_numpy(left))
        binding.bind_ortvalue_output(
            "b", onnxruntime.OrtValue.ortvalue_from_shape_and_type([side, side], np.int32 if int8 else np.float32)
        )
        return lambda: session.run_with_iobinding(binding)

    return make


def _torch_product(kind: str) -> dict[str, Callable[[int], Callable[[], Any]]]:
    """Return a function that makes a product with oneDNN or MKL through torch; none where torch is not installed."""
    if find_spec("torch") is None:
        return {}

    def make(side: int) -> Callable[[], Any]:
        import torch

        torch.set_num_threads(_threads())
        if kind == "fp32":
            left, right, out = (torch.rand(side, side) for _ in range(3))
            return lambda: torch.mm(left, right, out=out)
        codes = torch.randint(-9, 9, (2, side, side), dtype=torch.int8)
        return lambda: torch._int_mm(codes[0], codes[1])

    return {"torch": make}


def bandwidth(state_bytes: int) -> float:
    """Return bytes per second of a triad a = b + 3 c, as STREAM counts them, over arrays of `state_bytes` together.

    Each element is read twice and written once; that a line is read before it is written is not counted. Without torch,
    the sum a = b + c, since numpy would make two passes of the triad.
    """
    count = state_bytes // 12
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(_threads())
        a, b, c = (torch.ones(count) for _ in range(3))
        return 12 * count / best_seconds(lambda: torch.add(b, c, alpha=3, out=a))
    x, y, z = (np.ones(count, dtype=np.float32) for _ in range(3))
    return 12 * count / best_seconds(lambda: np.add(y, z, out=x))


def _threads() -> int:
    """Return the number of CPUs that this process is pinned to."""
    from toolkit.utils.machine import usable_cores

    return usable_cores()

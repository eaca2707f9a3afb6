"""Where the time of a text goes: tokenizer, each kind of operator of the graph, and what is around it."""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 3
"""Passes over the texts; the fastest counts, since other programs only add time."""


def mean_us(function: Callable[[Any], Any], arguments: Sequence[Any]) -> float:
    """Return the mean microseconds of a call over all arguments, of the fastest of ROUNDS passes."""
    passes = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter_ns()
        for each in arguments:
            function(each)
        passes.append((time.perf_counter_ns() - start) / 1000 / len(arguments))
    return min(passes[1:])


def operator_us(graph: Path, ids: Sequence[np.ndarray], threads: int) -> dict[str, float]:
    """Return the mean microseconds of each kind of operator per text, slowest first, by the profile of ONNX Runtime.

    Measuring slows small operators down: their shares are right, their sum is more than the run without a profile.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="hbt-profile-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        for each in [ids[0], *ids]:
            session.run(None, feed(session, each))
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return sum_events(events, len(ids) + 1)


def sum_events(events: Sequence[dict[str, Any]], runs: int) -> dict[str, float]:
    """Return the mean microseconds of each kind of operator per run, slowest first, from the events of a profile."""
    total: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            total[event["args"]["op_name"]] += event["dur"] / runs
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def feed(session: Any, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return the inputs of a session for the token ids of one text."""
    names = {each.name for each in session.get_inputs()}
    return {
        name: row
        for name, row in (("input_ids", ids[None]), ("attention_mask", np.ones_like(ids)[None]))
        if name in names
    }

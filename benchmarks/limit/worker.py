"""Measure the limit and the rest in a process with pinned threads: `python -m benchmarks.limit.worker SPEC.json`.

SPEC.json has `package` (folder), `part` (of a cascade), `texts`, `threads` and `artifact_bytes`. Prints a line of JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limit.operations import mean_work, ngram_work
from benchmarks.limit.operators import feed, mean_us, operator_us
from benchmarks.limit.peaks import measure_peaks
from exporters.loaders.base.routing import TRANSFORMER
from toolkit.latency.timing import labeling
from toolkit.latency.worker import load_predictor, pin_to_cpus


def main(arguments: list[str]) -> None:
    spec = json.loads(Path(arguments[0]).read_text("utf-8"))
    threads, folder = spec["threads"], Path(spec["package"])
    pin_to_cpus(threads)
    model: Any = load_predictor("package", folder, threads)
    label = labeling(model)
    if spec["part"] == TRANSFORMER:
        model, folder = model.routing.transformer, folder / TRANSFORMER
        label = model.predict
    elif hasattr(model, "routing"):  # a cascade, here without the texts that it defers
        model.routing.margin = float("-inf")
    found = _parts(model, label, folder, spec["texts"], threads)
    print(json.dumps(found | {"peaks": asdict(measure_peaks(spec["artifact_bytes"]))}))


def _parts(model: Any, label: Callable[..., Any], folder: Path, texts: list[str], threads: int) -> dict[str, Any]:
    """Return the work of a text, and the microseconds of each part of it: tokenizer, network, all."""
    found: dict[str, Any] = {"text_us": mean_us(lambda text: label([text]), texts)}
    if hasattr(model, "table"):  # the n-gram model of model.bin
        ids = [model.token_ids(text) for text in texts]
        found |= {"work": asdict(ngram_work(ids, len(model.scales))), "tokens": float(np.mean([*map(len, ids)]))}
        if model.compiled:
            return found | {"network_us": mean_us(model.score, texts)}  # with its normalizer
        return found | {
            "tokenizer_us": mean_us(model.token_ids, texts),
            "network_us": mean_us(model.logits, ids),
        }
    graph, session = _graph_of(model, folder, threads)
    encoded = model.encode(texts)
    lengths = [len(each) for each in encoded]
    feeds = [feed(session, each) for each in encoded]
    work = mean_work(graph, lengths)
    return found | {
        "work": asdict(work),
        "tokens": float(np.mean(lengths)),
        "tokenizer_us": mean_us(lambda text: model.encode([text]), texts),
        "network_us": mean_us(lambda each: session.run(None, each), feeds),
        "operators_us": operator_us(graph, encoded, threads),
    }


def _graph_of(model: Any, folder: Path, threads: int) -> tuple[Path, Any]:
    """Return the ONNX graph of a transformer and a session of it, opened as the loader does."""
    from exporters.loaders.onnx_runtime.graph_file import graph_file
    from exporters.loaders.onnx_runtime.session import open_session

    graph = folder / graph_file(folder)
    return graph, open_session(graph, threads)


if __name__ == "__main__":
    main(sys.argv[1:])

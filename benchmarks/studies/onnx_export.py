"""Which ONNX graph of a transformer is better: the tracer's or that of torch.export?

    pip install onnxscript
    python -m benchmarks.studies.onnx_export ../shared/models/me5-small-bn ../shared/models/minilm-l6 shape:4x128 \
        classifier:../shared/models/minilm-l6

`torch.onnx.export` traces with TorchScript (dynamo=False) or captures with torch.export (dynamo=True, which needs
onnxscript). Both graphs of each model are exported, fused and quantized as `--target onnx-int8` does, compared with
torch, and timed in turns on one thread. Heads have random weights: neither speed nor the difference to torch depends on
what a classifier has learned. Prints a table; --out appends every figure to a CSV file.
"""

import argparse
import csv
import hashlib
import logging
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from exporters.calibration import calibrate
from exporters.int8_graph import Scheme, part_name, table_nodes, weight_nodes
from exporters.onnx_fp32 import export_graph, feed, largest_logit_gap, plain_attention
from exporters.onnx_int8 import fuse, schemes, write_scheme
from toolkit.config.settings import ModelSettings
from toolkit.data.demo import demo_table
from toolkit.modeling.classifier import Classifier, load_sequence_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.tokenizer import encode
from toolkit.utils.console import print_table
from toolkit.utils.machine import describe_machine

EXPORTERS = ("dynamo=False, sdpa", "dynamo=False, eager", "dynamo=True, sdpa", "dynamo=True, eager")
"""How a graph is made, and how the network attends meanwhile: by PyTorch's one function or by single operations."""
KEPT = "dynamo=False, eager"
"""What `exporters.onnx_fp32.export_graph` does, and what matrices are compared with."""
TRACER_OPSET, CAPTURE_OPSET = 17, 18
"""The second is the lowest that torch.export's translations are written for."""
LABELS = ("0", "1")
IMPORTED = "classifier:"
"""Before a folder: as a Hugging Face sequence-classification model, not as an encoder with mean pooling."""
TOKENS = 16
"""Length of the text that is timed."""
CALIBRATION, CHECKED = 64, 64
"""Texts that give the ranges of activations, and on which logits are compared."""
WARMUP, TURN = 3, 20
"""Runs of a graph in each of its turns: untimed, timed."""
EXPORTS = 3
"""Exports of each kind, in turns; the median is reported."""
STATIC = schemes("off", describe_machine().flags)[0]
"""The first scheme that onnx-int8 tries on this processor."""
PER_TOKEN = Scheme("per token")
GRAPHS = ("fp32", "fp32-fused", "int8", "int8-fused")


@dataclass(frozen=True)
class Line:
    """What was measured of the graphs of one model by one exporter."""

    model: str
    exporter: str
    opset: int
    export_s: float
    nodes: int
    """As exported."""
    nodes_fused: int
    """After the fusions that `exporters.onnx_int8.fuse` writes into a file."""
    nodes_session: int
    """After those that a session makes of the exported graph when it loads it."""
    attention_fused: int
    """Attention layers that `fuse` put into one node."""
    matrices: int
    """Products with a constant matrix that are quantized."""
    matrices_fused: int
    tables: int
    same_matrices: bool
    """Whether these have the values of KEPT's, before and after fusion."""
    first_matrix: str
    """What tables and cards call the first of them."""
    logit_gap: float
    """Largest difference to torch in single precision."""
    fused_logit_gap: float
    int8_logit_gap: float
    int8_fused_logit_gap: float
    per_token_runs: bool
    """Whether ONNX Runtime takes the per-token int8 scheme."""
    fp32_ms: float
    fp32_fused_ms: float
    int8_ms: float
    int8_fused_ms: float
    rounds: int
    """Turns of TURN runs behind each median."""
    cpu: str
    torch: str
    transformers: str
    onnxruntime: str


def main() -> None:
    given = _arguments()
    texts = demo_table().columns["text"][: CALIBRATION + CHECKED]
    found: list[Line] = []
    for name in given.models:
        lines = compare(name, texts, given.rounds)
        found += lines
        if given.out is not None:
            append(lines, given.out)
    report(found)


def append(lines: Sequence[Line], file: Path) -> None:
    """Add `lines` to a CSV file, at once on the disk; a new file gets a heading."""
    names = [field.name for field in fields(Line)]
    new = not file.is_file()
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, names, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(map(asdict, lines))


def compare(name: str, texts: Sequence[str], rounds: int) -> list[Line]:
    """Return the figures of both exporters for one model."""
    classifier = classifier_of(name, texts)
    with tempfile.TemporaryDirectory(prefix="hbt-export-") as scratch:
        folders = {exporter: Path(scratch) / exporter.replace(" ", "") for exporter in EXPORTERS}
        seconds = export_in_turns(classifier, folders)
        per_token = {
            exporter: write_graphs(classifier, texts[:CALIBRATION], folder) for exporter, folder in folders.items()
        }
        files = [folder / f"{graph}.onnx" for folder in folders.values() for graph in GRAPHS]
        ms = dict(zip(files, medians_in_turns(files, classifier.tokenizer.get_vocab_size(), rounds), strict=True))
        matrices = {file: hashes_of_matrices(file) for file in files if "fp32" in file.name}
        expected = matrices[folders[KEPT] / "fp32.onnx"]
        found = []
        for exporter, folder in folders.items():
            figures: dict[str, Any] = shape_of_graphs(folder) | gaps(classifier, texts[CALIBRATION:], folder)
            figures |= {f"{graph.replace('-', '_')}_ms": round(ms[folder / f"{graph}.onnx"], 3) for graph in GRAPHS}
            figures |= {
                "model": Path(name).name + (", classifier" if name.startswith(IMPORTED) else ""),
                "exporter": exporter,
                "export_s": round(seconds[exporter], 2),
                "same_matrices": matrices[folder / "fp32.onnx"] == matrices[folder / "fp32-fused.onnx"] == expected,
                "per_token_runs": per_token[exporter],
                "rounds": rounds,
            }
            found.append(Line(**figures, **circumstances()))
        return found


def classifier_of(name: str, texts: Sequence[str]) -> Classifier:
    """Return a classifier of two labels with a random head: a folder or shape with mean pooling, or `IMPORTED` folder.

    texts: what the tokenizer of a shape is trained on.
    """
    if not name.startswith(IMPORTED):
        return build_classifier(ModelSettings(model=name, pooling="mean"), LABELS, texts, seed=0)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = name.removeprefix(IMPORTED)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="hbt-export-") as folder:
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2, trust_remote_code=False)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(folder)
        return load_sequence_classifier(folder, max_length=128)


def export_in_turns(classifier: Classifier, folders: dict[str, Path]) -> dict[str, float]:
    """Write fp32.onnx into each folder by the exporter that it is named after; return median seconds."""
    seconds: dict[str, list[float]] = {exporter: [] for exporter in folders}
    for _ in range(EXPORTS):
        for exporter, folder in folders.items():
            folder.mkdir(exist_ok=True)
            before = time.perf_counter()
            if exporter == KEPT:
                export_graph(classifier, folder / "fp32.onnx")
            else:
                export_as(exporter, classifier, folder / "fp32.onnx")
            seconds[exporter].append(time.perf_counter() - before)
    return {exporter: statistics.median(found) for exporter, found in seconds.items()}


def export_as(exporter: str, classifier: Classifier, file: Path) -> None:
    """Write the graph that `exporter` makes, with the inputs and outputs of `export_graph`."""
    ids = torch.zeros((2, 8), dtype=torch.int64)  # (batch, tokens)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    names: dict[str, Any] = {"input_names": ["input_ids", "attention_mask"], "output_names": ["logits"]}
    if "True" in exporter:
        free = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
        how: dict[str, Any] = {"dynamo": True, "opset_version": CAPTURE_OPSET, "external_data": False}
        how |= {"verbose": False, "dynamic_shapes": dict.fromkeys(names["input_names"], free)}
    else:
        axes = {0: "batch_size", 1: "sequence_length"}
        how = {"dynamo": False, "opset_version": TRACER_OPSET}
        how |= {"dynamic_axes": {"input_ids": axes, "attention_mask": axes, "logits": {0: "batch_size"}}}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells that torchvision is not there
    attending = plain_attention(classifier.network) if "eager" in exporter else nullcontext()
    with warnings.catch_warnings(), torch.no_grad(), attending:
        warnings.simplefilter("ignore")
        torch.onnx.export(classifier.network.eval(), (ids, mask), str(file), **names, **how)


def write_graphs(classifier: Classifier, texts: Sequence[str], folder: Path) -> bool:
    """Write the other GRAPHS of `folder` beside its fp32.onnx; return whether the per-token scheme runs as well."""
    fuse(folder / "fp32.onnx", folder / "fp32-fused.onnx")
    encoded = encode(classifier.tokenizer, texts)
    for graph in ("", "-fused"):
        single = folder / f"fp32{graph}.onnx"
        names = [node.input[0] for node in weight_nodes(onnx.load(single).graph)]
        write_scheme(single, STATIC, calibrate(single, encoded, names, STATIC.ranges), folder / f"int8{graph}.onnx")
    write_scheme(folder / "fp32.onnx", PER_TOKEN, {}, folder / "per-token.onnx")
    try:
        largest_logit_gap(classifier, texts[:1], folder / "per-token.onnx")
    except Exception:  # ONNX Runtime raises types of its own
        return False
    return True


def medians_in_turns(files: Sequence[Path], vocabulary: int, rounds: int) -> list[float]:
    """Return median milliseconds of each graph for one text of TOKENS tokens on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    sessions = [onnxruntime.InferenceSession(str(f), options, providers=["CPUExecutionProvider"]) for f in files]
    ids = np.random.default_rng(0).integers(0, vocabulary, (1, TOKENS))
    samples: list[list[float]] = [[] for _ in files]
    for _ in range(rounds):
        for session, found in zip(sessions, samples, strict=True):
            given = feed(session, ids, np.ones_like(ids))
            for run in range(WARMUP + TURN):
                before = time.perf_counter_ns()
                session.run(["logits"], given)
                if run >= WARMUP:
                    found.append((time.perf_counter_ns() - before) / 1e6)
    return [statistics.median(found) for found in samples]


def hashes_of_matrices(file: Path) -> Counter[str]:
    """Return the products that are quantized, as hashes of their matrices (in, out), rounded beyond any fusion."""
    graph = onnx.load(file).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def matrix(node: onnx.NodeProto) -> np.ndarray:
        value = numpy_helper.to_array(constants[node.input[1]])
        turned = any(each.name == "transB" and helper.get_attribute_value(each) for each in node.attribute)
        return np.ascontiguousarray((value.T if turned else value).astype(np.float16))

    return Counter(hashlib.sha256(matrix(node).tobytes()).hexdigest() for node in weight_nodes(graph))


def shape_of_graphs(folder: Path) -> dict[str, Any]:
    """Return what the graphs of `folder` consist of."""
    whole, fused = (onnx.load(folder / f"{graph}.onnx") for graph in ("fp32", "fp32-fused"))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "session.onnx")
    onnxruntime.InferenceSession(str(folder / "fp32.onnx"), options, providers=["CPUExecutionProvider"])
    found = weight_nodes(whole.graph)
    return {
        "opset": next(known.version for known in whole.opset_import if not known.domain),
        "nodes": len(whole.graph.node),
        "nodes_fused": len(fused.graph.node),
        "nodes_session": len(onnx.load(folder / "session.onnx").graph.node),
        "attention_fused": sum(node.op_type in ("Attention", "MultiHeadAttention") for node in fused.graph.node),
        "matrices": len(found),
        "matrices_fused": len(weight_nodes(fused.graph)),
        "tables": len(table_nodes(whole.graph)),
        "first_matrix": part_name(found[0]) if found else "",
    }


def gaps(classifier: Classifier, texts: Sequence[str], folder: Path) -> dict[str, float]:
    """Return the largest difference of a logit to torch for each graph."""
    names = ("logit_gap", "fused_logit_gap", "int8_logit_gap", "int8_fused_logit_gap")
    return {
        name: float(f"{largest_logit_gap(classifier, texts, folder / f'{graph}.onnx'):.3g}")
        for name, graph in zip(names, GRAPHS, strict=True)
    }


def circumstances() -> dict[str, Any]:
    """Return the processor and the versions that the figures depend on."""
    from importlib.metadata import version

    versions = {name: version(name).split("+")[0] for name in ("torch", "transformers", "onnxruntime")}
    return {"cpu": describe_machine().cpu} | versions


def report(lines: Sequence[Line]) -> None:
    """Print the figures that decide."""
    table = [
        {
            "Model": line.model,
            "Exporter": line.exporter,
            "Export s": f"{line.export_s:.1f}",
            "Nodes": f"{line.nodes:,}",
            "fused": f"{line.nodes_fused:,}",
            "in a session": f"{line.nodes_session:,}",
            "Matrices": f"{line.matrices} / {line.matrices_fused}",
            "Same": "yes" if line.same_matrices else "no",
            "Gap fp32": f"{line.logit_gap:.1g}",
            "Gap int8": f"{line.int8_logit_gap:.2g}",
            "fp32 ms": f"{line.fp32_ms:.2f} / {line.fp32_fused_ms:.2f}",
            "int8 ms": f"{line.int8_ms:.2f} / {line.int8_fused_ms:.2f}",
            "Per token": "runs" if line.per_token_runs else "fails",
        }
        for line in lines
    ]
    title = f"as exported / fused; one thread, {TOKENS} tokens, medians of {lines[0].rounds} turns of {TURN} runs"
    print_table(table, title, left=("Model", "Exporter"))


def _arguments() -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")[2]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.onnx_export", description=summary)
    parser.add_argument("models", nargs="+", help=f"encoder folder, shape:LxH, or {IMPORTED}FOLDER")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each graph (default 30)")
    parser.add_argument("--out", type=Path, help="CSV file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Size by part: embedding, encoder, tokenizer, and the distributions that a model needs to run."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from exporters.loaders.base.routing import TRANSFORMER
from exporters.loaders.onnx_runtime.graph_file import graph_file
from exporters.registry import exporter
from toolkit.latency.measure import Subject
from toolkit.manifest import read_manifest

PARTS = ("embedding", "encoder", "tokenizer", "runtime")
"""embedding: tables that are read by index, the n-gram table too. encoder: all other weights. tokenizer: its file.
runtime: the distributions that requirements.txt names, as installed here, without those that they need themselves."""
_NEEDED = {
    "checkpoint": ("torch", "transformers", "tokenizers", "safetensors", "numpy"),
    "linear": ("scikit-learn", "scipy", "numpy"),
    "onnx": ("onnxruntime", "tokenizers", "numpy"),
}


def parts_of(subject: Subject) -> dict[str, int]:
    """Return the bytes of each of PARTS of a model; what is not known of it is left out."""
    if subject.kind == "package":
        needed = exporter(read_manifest(subject.path)["target"]).needs(subject.path)
        return _weights(subject.path) | {"runtime": sum(map(installed_bytes, needed))}
    needed = _NEEDED.get(subject.kind, ())
    tokenizer = subject.path / "tokenizer.json"
    found = {"tokenizer": tokenizer.stat().st_size} if tokenizer.is_file() else {}
    return found | ({"runtime": sum(map(installed_bytes, needed))} if needed else {})


def _weights(folder: Path) -> dict[str, int]:
    """Return the bytes of a package's weights and tokenizers; a cascade's are those of both its models."""
    folders = [folder, *(part for part in [folder / TRANSFORMER] if part.is_dir())]
    found = {"tokenizer": sum((each / "tokenizer.json").stat().st_size for each in folders)}
    graphs = [each / graph_file(each) for each in folders if (each / graph_file(each)).is_file()]
    if not graphs:  # of another runtime
        return found
    sizes = [graph_parts(graph) for graph in graphs]
    return found | {name: sum(each[name] for each in sizes) for name in ("embedding", "encoder")}


def graph_parts(file: Path) -> dict[str, int]:
    """Return the bytes of the weights of an ONNX graph that are read by index, and of all others."""
    import onnx

    graph = onnx.load(str(file)).graph
    sizes = {each.name: tensor_bytes(each) for each in graph.initializer}
    indexed = {name for node in graph.node if node.op_type == "Gather" for name in node.input[:1]}
    for node in graph.node:  # a table in int8 is read, and then scaled
        if node.op_type in ("DequantizeLinear", "Cast") and {*node.output} & indexed:
            indexed |= {*node.input}
    embedding = sum(size for name, size in sizes.items() if name in indexed)
    return {"embedding": embedding, "encoder": sum(sizes.values()) - embedding}


def tensor_bytes(tensor: Any) -> int:
    """Return the bytes of an initializer of ONNX."""
    import math

    from onnx import TensorProto, helper

    count = math.prod(tensor.dims)
    if tensor.data_type in (TensorProto.UINT4, TensorProto.INT4):
        return (count + 1) // 2
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def installed_bytes(name: str) -> int:
    """Return the size of the files of an installed distribution; 0 if it is not installed."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return 0
    files = [Path(str(found.locate_file(file))) for file in found.files or ()]
    return sum(file.stat().st_size for file in files if file.is_file())

"""onnx-int8: matrices and embeddings in eight bits, run by ONNX Runtime.

Which scheme (`exporters.int8_graph.Scheme`) is best depends on the classifier and on the processor: this module says
which are worth trying, and the gate measures them. An ngram student has no activations to quantize, so it has one
scheme.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exporters.loaders.model_bin.library import C_SOURCES
from exporters.onnx_fp32 import MODEL_FILE, OnnxTarget
from exporters.registry import NOTHING, Candidate, Evidence
from toolkit.utils.errors import CannotExport

if TYPE_CHECKING:
    import onnx

    from exporters.calibration import Activations, Method
    from exporters.int8_graph import Scheme
    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

CODES: tuple[tuple[Literal["uint8", "int8"], Literal["int8", "uint8"]], ...] = (
    ("uint8", "int8"),
    ("uint8", "uint8"),
    ("int8", "int8"),
)
"""Codes of activations and of weights."""
VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")
"""CPU flags of 8-bit dot products on x86."""


class OnnxInt8(OnnxTarget):
    """See `exporters.registry.Exporter`."""

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
    ) -> list[Candidate]:
        from toolkit.modeling.ngram import NgramNetwork

        if isinstance(classifier.network, NgramNetwork):
            return [_ngram_candidate(classifier, evidence)]
        return _graph_candidates(classifier, evidence, settings, reference / MODEL_FILE)


def schemes(search: str, flags: tuple[str, ...], this_cpu_only: bool = False) -> list["Scheme"]:
    """Return the schemes to try on a processor with these flags, best guess first.

    x86 without 8-bit dot products (VNNI) adds the products of U8S8 in 16 bits, where they can saturate (ONNX Runtime's
    guide to quantization). Weights of seven bits cannot, so that a package has the same scores on every processor.
    ARM has dot products of signed codes.

    this_cpu_only: start with the schemes that have weights of eight bits.
    """
    from exporters.int8_graph import STATIC, Scheme

    arm = "asimd" in flags
    best = Scheme("smoothed", inputs="int8" if arm else "uint8", reduced=True)
    fast = [
        best,
        *(replace(best, method=method) for method in ("minmax", "percentile", "per token")),
        Scheme("dynamic", reduced=True),
        Scheme("dynamic", reduced=True, per_column=False),
    ]
    if this_cpu_only:
        fast = [*(replace(scheme, reduced=False) for scheme in fast), *fast]
    if search == "off":
        return fast[:1]
    if search == "fast":
        return fast
    methods = (*STATIC, "per token", "dynamic")
    grid = [
        Scheme(method, per_column, inputs, weights, reduced=True)
        for method in methods
        for per_column in (True, False)
        for inputs, weights in CODES
        if not (method == "dynamic" and inputs == "int8")
    ]
    grid += [replace(scheme, tables=False) for scheme in fast]
    return list(dict.fromkeys([*fast, *grid]))


def _graph_candidates(
    classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
) -> list[Candidate]:
    """The schemes of a transformer that the settings allow."""
    import onnx

    from exporters.calibration import calibrate
    from exporters.int8_graph import parts_of, weight_nodes
    from toolkit.modeling.tokenizer import encode
    from toolkit.utils.machine import describe_machine

    def allowed(scheme: "Scheme") -> bool:
        if settings.quant_method == "dynamic" and scheme.static:
            return False
        if settings.quant_method in ("static", "qat") and not scheme.static:
            return False
        return settings.quant_dtype in (None, scheme.weights)

    @cache
    def seen(method: "Method") -> "dict[str, Activations]":
        names = [node.input[0] for node in weight_nodes(onnx.load(reference).graph)]
        return calibrate(reference, encode(classifier.tokenizer, evidence.calibration), names, method)

    flags = describe_machine().flags
    everything = schemes("full", flags, settings.this_cpu_only)
    usual = schemes(settings.search, flags, settings.this_cpu_only)
    chosen = [scheme for scheme in usual if allowed(scheme)] or [scheme for scheme in everything if allowed(scheme)][:1]
    parts = parts_of(onnx.load(reference).graph)
    made = [_candidate(scheme, reference, seen, parts) for scheme in chosen]
    if settings.search == "full":
        fast = schemes("fast", flags, settings.this_cpu_only)
        made += [_fused_candidate(scheme, classifier, evidence, reference) for scheme in chosen if scheme in fast]
    return made


def _candidate(scheme: "Scheme", reference: Path, seen: Any, parts: tuple[str, ...]) -> Candidate:
    def write(folder: Path, in_float: frozenset[str] = NOTHING) -> dict[str, Any]:
        write_scheme(reference, scheme, seen(scheme.ranges) if scheme.static else {}, folder / MODEL_FILE, in_float)
        return {}

    return Candidate(scheme.name, write, parts, this_cpu_only=not scheme.reduced)


def write_scheme(
    reference: Path, scheme: "Scheme", seen: "dict[str, Activations]", file: Path, in_float: frozenset[str] = NOTHING
) -> None:
    """Write the graph `reference` in the given scheme. seen: see `exporters.calibration.calibrate`."""
    import onnx

    from exporters.int8_graph import CONTRIB, drop_unused, quantize_matrices, quantize_tables

    model = onnx.load(reference)
    quantize_matrices(model.graph, scheme, seen, in_float)
    if scheme.tables:
        quantize_tables(model.graph, in_float)
    drop_unused(model.graph)
    if not any(known.domain == CONTRIB for known in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    onnx.save(model, str(file))


def _fused_candidate(scheme: "Scheme", classifier: "Classifier", evidence: Evidence, reference: Path) -> Candidate:
    """The scheme of a graph whose attention ONNX Runtime's optimizer has put into nodes of its own."""
    from exporters.calibration import calibrate
    from exporters.int8_graph import weight_nodes
    from toolkit.modeling.tokenizer import encode

    def write(folder: Path, in_float: frozenset[str] = NOTHING) -> dict[str, Any]:
        import onnx

        fused = folder / "fused.onnx"
        fuse(reference, fused)
        names = [node.input[0] for node in weight_nodes(onnx.load(fused).graph)]
        seen = calibrate(fused, encode(classifier.tokenizer, evidence.calibration), names, scheme.ranges)
        write_scheme(fused, scheme, seen, folder / MODEL_FILE, in_float)
        fused.unlink()
        return {}

    return Candidate(f"{scheme.name}, fused", write, this_cpu_only=not scheme.reduced)


def fuse(reference: Path, file: Path) -> None:
    """Write the graph `reference` with its attention, additions and norms in nodes of ONNX Runtime's own."""
    import logging

    import onnx
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    how = FusionOptions("bert")
    how.use_multi_head_attention = True  # its matrices stay outside of it, where they can be quantized
    how.enable_embed_layer_norm = False
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    stated = onnx.load(str(reference))
    state_heads(stated.graph)
    onnx.save(stated, str(file))
    model = optimize_model(str(file), "bert", num_heads=0, hidden_size=0, optimization_options=how, opt_level=0)
    model.save_model_to_file(str(file))


def state_heads(graph: "onnx.GraphProto") -> None:
    """Write the number of heads into each reshape to (batch, tokens, -1, head width) of what comes out of a matrix.

    Without it the optimizer fuses no attention. It takes one number for all layers as well, but the layers of a pruned
    network differ.
    """
    from onnx import helper, numpy_helper

    made = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants |= {
        name: numpy_helper.to_array(node.attribute[0].t)
        for name, node in made.items()
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    nodes = []
    for node in graph.node:
        shape = made.get(node.input[1]) if node.op_type == "Reshape" else None
        columns = None if shape is None else _columns(node.input[0], made, constants)
        if shape is not None and columns and shape.op_type == "Concat" and len(shape.input) == 4:
            heads, width = (constants[name].tolist() if name in constants else None for name in shape.input[2:])
            if heads == [-1] and width:
                stated = (f"{node.output[0]}_heads", f"{node.output[0]}_shape")
                graph.initializer.append(numpy_helper.from_array(np.array([columns // width[0]]), stated[0]))
                parts = [*shape.input[:2], stated[0], shape.input[3]]
                nodes.append(helper.make_node("Concat", parts, [stated[1]], axis=0))
                node.input[1] = stated[1]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _columns(name: str, made: "Mapping[str, onnx.NodeProto]", constants: Mapping[str, np.ndarray]) -> int | None:
    """Columns of the matrix that gave the activation `name`, with or without a bias; None if there is none."""
    node = made.get(name)
    if node is not None and node.op_type == "Add":
        node = next((made[each] for each in node.input if each in made and made[each].op_type == "MatMul"), None)
    if node is None or node.op_type != "MatMul" or node.input[1] not in constants:
        return None
    return constants[node.input[1]].shape[-1]


def _ngram_candidate(classifier: "Classifier", evidence: Evidence) -> Candidate:
    """The table in eight bits, and what is needed to run it without ONNX Runtime.

    Without ONNX Runtime, one text takes longer than in single precision with it: no speed is promised.
    """
    from exporters.ngram.graph import write_int8
    from exporters.ngram.tables import write_head
    from exporters.ngram.target import SOURCES

    def write(folder: Path, in_float: frozenset[str] = NOTHING) -> dict[str, Any]:
        network: Any = classifier.network
        write_int8(network, folder / MODEL_FILE)
        try:
            write_head(network, classifier.tokenizer, classifier.labels, evidence.rule, folder)
        except CannotExport:  # then the package needs ONNX Runtime
            return {}
        for name in C_SOURCES:
            (folder / name).write_bytes((SOURCES / name).read_bytes())
        return {}

    return Candidate("table in eight bits", write, promise="same")


EXPORTER = OnnxInt8("onnx-int8", "ONNX Runtime, matrices and embeddings in eight bits", "faster")

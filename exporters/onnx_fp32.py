"""onnx-fp32: the classifier as an ONNX graph in single precision, run by ONNX Runtime."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exporters.loaders.compose import CASCADE, NGRAM, Loader, load_package, loader_source, model_type
from exporters.loaders.model_bin.arrays import HEAD_FILE
from exporters.loaders.model_bin.library import C_SOURCES
from exporters.loaders.onnx_runtime.graph_file import GRAPH_FILE as MODEL_FILE
from exporters.registry import Candidate, Evidence, LoadedArtifact
from toolkit.utils.errors import CannotExport, full_disk, out_of_memory, reason_of

if TYPE_CHECKING:
    import onnx

    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

OPSET = 17
LOGIT_TOLERANCE = 1e-3
"""A graph in single precision whose logits are further from torch than this is not the same model."""
DISTRIBUTIONS = ("onnxruntime", "tokenizers", "numpy")


@dataclass(frozen=True)
class OnnxTarget:
    """What all targets that ONNX Runtime runs have in common; see `exporters.registry.Exporter`."""

    name: str
    summary: str
    promise: Literal["faster", "smaller", "same"]
    reference: str | None = "onnx-fp32"
    file: str = MODEL_FILE
    distributions: tuple[str, ...] = DISTRIBUTIONS

    def available(self) -> str | None:
        return missing_modules("onnx", "onnxruntime")

    def loader(self, folder: Path) -> str:
        return loader_source(onnx_loader(folder))

    def needs(self, folder: Path) -> tuple[str, ...]:
        return ("numpy",) if onnx_loader(folder) == "ngram" else self.distributions

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtifact:
        from exporters.loaders import cascade, cascade_onnx, ngram
        from exporters.ngram.target import has_own_sources

        loader = onnx_loader(folder)
        if loader == "cascade_onnx":
            return cascade_onnx.open_cascade(folder, threads, False, open_transformer)
        if loader not in ("ngram", "cascade"):
            return load_package(loader, folder, threads)
        # A package may come from a stranger: only code that is hbt's own is compiled.
        compiled = None if has_own_sources(folder, C_SOURCES) else False
        if loader == "ngram":
            return ngram.load(folder, threads, verify=False, compile=compiled)
        return cascade.open_cascade(folder, threads, False, compiled, open_transformer)


class OnnxFp32(OnnxTarget):
    """See `exporters.registry.Exporter`."""

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
    ) -> list[Candidate]:
        def write(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
            export_graph(classifier, folder / MODEL_FILE)
            gap = largest_logit_gap(classifier, evidence.validation, folder / MODEL_FILE)
            if gap > LOGIT_TOLERANCE:
                raise CannotExport(f"the ONNX graph's logits differ from torch by {gap:.2g}")
            return {"fp32_logit_gap": gap}

        return [Candidate("fp32", write)]


def missing_modules(*modules: str, install: str = "onnx onnxruntime") -> str | None:
    """None if every module can be found, else what to install."""
    from importlib.util import find_spec

    missing = [module for module in modules if find_spec(module) is None]
    return f"{', '.join(missing)} missing: pip install {install}" if missing else None


def onnx_loader(folder: Path) -> Loader:
    """Return the loader of a package folder with an ONNX graph; an n-gram student with HEAD_FILE is run without it."""
    kind, without = model_type(folder), (folder / HEAD_FILE).exists()
    if kind == CASCADE:
        return "cascade" if without else "cascade_onnx"
    if kind == NGRAM:
        return "ngram" if without else "ngram_onnx"
    return "onnx"


def open_transformer(folder: Path, threads: int | None) -> LoadedArtifact:
    """Return the transformer of a cascade, run by hbt's own code."""
    return load_package("onnx", folder, threads)


def export_graph(classifier: "Classifier", file: Path) -> None:
    """Write the ONNX graph of `classifier` in single precision, output logits, every input axis free.

    Inputs: input_ids and attention_mask; input_ids alone for an ngram student.
    Raises: CannotExport for a network that the tracer does not know.
    """
    from toolkit.modeling.ngram import NgramNetwork

    if isinstance(classifier.network, NgramNetwork):
        from exporters.ngram.graph import write_fp32

        write_fp32(classifier.network, file)
    else:
        _trace(classifier.network, file)


def _trace(network: Any, file: Path) -> None:
    """Write the graph of a transformer."""
    import warnings

    import onnx
    import torch

    ids = torch.zeros((2, 8), dtype=torch.int64)  # (batch, tokens)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # a padded row, or a network might leave the mask out of what it computes
    axes = {0: "batch_size", 1: "sequence_length"}
    try:
        with warnings.catch_warnings(), torch.no_grad(), plain_attention(network):
            warnings.simplefilter("ignore")  # the tracer warns of shape checks that hold for every text
            torch.onnx.export(
                network,
                (ids, mask),
                str(file),
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch_size"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # the tracer raises anything for an operation that ONNX does not have
        _reraise_failure_of_the_machine(error)
        raise CannotExport(reason_of(error)) from error
    model = onnx.load(file)
    state_sizes_to_expand_to(model.graph)
    onnx.save(model, file)


@contextmanager
def plain_attention(network: Any) -> Iterator[None]:
    """Let `network` attend by matrix products and a softmax while this is open.

    ONNX Runtime fuses these. Of PyTorch's one function for attention, the default, the tracer makes more nodes, with a
    check for rows that are masked as a whole, and these it does not fuse.
    """
    from toolkit.modeling.architecture import encoder_of
    from toolkit.modeling.hugging_face import quiet_transformers

    encoder = encoder_of(network)
    choose = getattr(encoder, "set_attn_implementation", None)  # transformers 4.53 has no such method
    if choose is None:
        yield
        return
    quiet_transformers()  # transformers 4 warns where an architecture has only one way
    before = encoder.config._attn_implementation
    choose("eager")
    try:
        yield
    finally:
        choose(before)


def state_sizes_to_expand_to(graph: "onnx.GraphProto") -> None:
    """Write 1 where a shape of an Expand has -1, "as it is", instead of the nodes that find such places at run time.

    OpenVINO computes these nodes wrongly and then refuses a size of -1.
    """
    from onnx import helper, numpy_helper

    made = {name: node for node in graph.node for name in node.output}

    def behind(name: str, kind: str) -> Any:
        return made[name] if name in made and made[name].op_type == kind else None

    def is_minus_one(name: str) -> bool:
        constant = behind(name, "Constant")
        return constant is not None and numpy_helper.to_array(constant.attribute[0].t).tolist() == [-1]

    nodes = []
    for node in graph.node:
        where = behind(node.input[1], "Where") if node.op_type == "Expand" else None
        flat = None if where is None else behind(where.input[2], "Reshape")
        sizes = None if flat is None else behind(flat.input[0], "Concat")
        if where is not None and sizes is not None and behind(where.input[0], "Equal") is not None:
            one, stated = f"{node.output[0]}_one", f"{node.output[0]}_sizes"
            parts = [one if is_minus_one(name) else name for name in sizes.input]
            if one in parts:
                graph.initializer.append(numpy_helper.from_array(np.array([1]), one))
            nodes.append(helper.make_node("Concat", parts, [stated], axis=0))
            node.input[1] = stated
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(_needed(nodes, {output.name for output in graph.output}))


def _needed(nodes: "list[onnx.NodeProto]", outputs: set[str]) -> "list[onnx.NodeProto]":
    """Return those of `nodes`, which are in the order of their use, that `outputs` follow from."""
    if any(attribute.HasField("g") for node in nodes for attribute in node.attribute):
        return nodes  # what branches and loops use does not stand in their inputs
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _reraise_failure_of_the_machine(error: BaseException) -> None:
    """Raise what lies behind `error` if that is the disk or the memory: no other target would do without these."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | MemoryError):
            raise cause
        cause = cause.__cause__
    if out_of_memory(error):  # native code reports it in words only
        raise MemoryError(reason_of(error)) from error
    if full_disk(error) is not None:
        raise error


def largest_logit_gap(classifier: "Classifier", texts: Sequence[str], file: Path) -> float:
    """Largest difference between a torch logit and an ONNX Runtime logit over `texts`, in the same batches."""
    import onnxruntime
    import torch

    from toolkit.modeling.classifier import like_lengths, pad
    from toolkit.modeling.tokenizer import encode

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    encoded = encode(classifier.tokenizer, texts)
    classifier.network.eval()
    gap = 0.0
    for chosen in like_lengths(encoded, 32):
        ids, mask = pad([encoded[i] for i in chosen], classifier.pad_id)
        with torch.inference_mode():
            ours = classifier.network(ids, mask)["logits"].numpy()
        theirs = session.run(["logits"], feed(session, ids.numpy(), mask.numpy()))[0]
        gap = max(gap, float(np.abs(ours - theirs).max()))
    return gap


def feed(session: Any, ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """What of ids and mask, both int64 (batch, tokens), the graph of `session` takes."""
    given = {"input_ids": ids, "attention_mask": mask}
    return {entry.name: given[entry.name] for entry in session.get_inputs()}


EXPORTER = OnnxFp32("onnx-fp32", "ONNX Runtime, single precision: the yardstick of the others", "same", reference=None)

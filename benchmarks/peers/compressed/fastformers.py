"""FastFormers (Kim and Hassan 2020) from stages of this toolkit: distillation, pruning, fused int8 with dynamic ranges.

The student with fewer layers is that of a run, distilled from the same teacher; heads and neurons of its feed-forward
layers are pruned and recovered with the teacher's logits; the graph is fused and quantized by ONNX Runtime, as in the
paper. The share that is pruned is chosen on validation rows.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Label, Missing, Rows
from benchmarks.peers.compressed.choice import chosen, facts
from benchmarks.peers.compressed.sessions import session_labels
from benchmarks.peers.compressed.teacher import read_head, teacher_of, write_head

MODEL = "fastformers"
SPARSITIES = (0.25, 0.5)
VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Prune and quantize the student with the share that is best on validation rows."""
    from toolkit.stages.run_folder import Run
    from toolkit.workflows.steps import distillation_of

    parts = teacher_of(given)
    if given.student is None:
        raise Missing("needs a student of fewer layers: --student RUN")
    run = Run.open(given.student)
    make = partial(_make, run, distillation_of(run), folder / "work")
    label = partial(_labels, rows.names)
    settings = [{"student": run.recipe.distillation.student, "sparsity": share} for share in SPARSITIES]
    trial = chosen(rows, settings, make, label, read_head(parts).validation_macro_f1, folder)
    shutil.rmtree(folder / "work", ignore_errors=True)
    return facts(trial, MODEL)


def load(folder: Path, names: Sequence[str], model: str) -> Label:
    """Return the function that labels texts."""
    return _labels(names, folder / "chosen")


def _make(run: Any, data: Any, work: Path, settings: dict[str, Any], folder: Path) -> None:
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    from exporters.onnx_fp32 import export_graph
    from exporters.onnx_int8 import fuse
    from toolkit.config.settings import PruningSettings
    from toolkit.modeling.classifier import load_classifier
    from toolkit.pruning.stage import prune
    from toolkit.utils.machine import describe_machine

    pruning = PruningSettings(prune_sparsity=settings["sparsity"])
    source = load_classifier(run.checkpoint(run.last_trained))
    pruned, _ = prune(source, replace(data, recipe=replace(data.recipe, pruning=pruning)), work)
    write_head(pruned, folder, 0.0)
    export_graph(pruned, folder / "float.onnx")
    fuse(folder / "float.onnx", folder / "fused.onnx")
    # Without 8-bit dot products, ONNX Runtime advises weights of seven bits.
    narrow = not {*VNNI} & {*describe_machine().flags}
    # It cannot infer the types of what comes out of nodes of ONNX Runtime's own.
    types = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    how: dict[str, Any] = {"per_channel": True, "reduce_range": narrow, "extra_options": types}
    quantize_dynamic(folder / "fused.onnx", folder / "model.onnx", **how)
    for name in ("float.onnx", "fused.onnx"):
        (folder / name).unlink()


def _labels(names: Sequence[str], folder: Path) -> Label:
    return session_labels(names, folder, folder / "model.onnx")

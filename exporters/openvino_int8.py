"""openvino-int8: matrices, activations and embeddings in eight bits by NNCF, run by OpenVINO."""

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exporters.loaders.compose import load_package, loader_source
from exporters.onnx_fp32 import MODEL_FILE as SINGLE_FILE, missing_modules
from exporters.registry import Candidate, Evidence, LoadedArtifact
from toolkit.evaluation.metrics import apply_threshold, macro_f1, softmax
from toolkit.utils.errors import InputError

if TYPE_CHECKING:
    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

MODEL_FILE = "model.xml"
"""The graph; its weights lie beside it in model.bin."""


@dataclass(frozen=True)
class OpenvinoInt8:
    """See `exporters.registry.Exporter`."""

    name: str = "openvino-int8"
    summary: str = "OpenVINO, weights, activations and embeddings in eight bits, ranges from training texts"
    promise: Literal["faster", "smaller", "same"] = "faster"
    reference: str | None = "onnx-fp32"
    file: str = MODEL_FILE
    distributions: tuple[str, ...] = ("openvino", "tokenizers", "numpy")

    def available(self) -> str | None:
        needed = missing_modules("openvino", "nncf", install="'hbt-toolkit[openvino]'")
        return needed or missing_modules("onnx", "onnxruntime")

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", single: Path
    ) -> list[Candidate]:
        from toolkit.modeling.ngram import NgramNetwork
        from toolkit.modeling.tokenizer import encode

        if isinstance(classifier.network, NgramNetwork):
            raise InputError(
                f"--target {self.name}: an ngram student has no matrices to quantize; take --target onnx-int8"
            )
        ids_of = functools.partial(encode, classifier.tokenizer)

        def plain(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
            return _save(_quantized(single, ids_of(evidence.calibration)), folder)

        def controlled(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
            rows = _Rows(ids_of(evidence.validation), evidence.labels, len(classifier.labels), evidence.threshold)
            return _save(_controlled(single, ids_of(evidence.calibration), rows, settings.max_drop), folder)

        found = [Candidate("static, smoothed", plain), Candidate("static, smoothed, accuracy control", controlled)]
        return found[:1] if settings.search == "off" else found

    def loader(self, model_type: str) -> str:
        return loader_source("openvino")

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtifact:
        return load_package("openvino", folder, threads)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Validation rows as NNCF wants them, and the metric that decides."""

    ids: Sequence[Sequence[int]]
    labels: np.ndarray
    """int (rows,)"""
    names: int
    """How many labels there are."""
    threshold: float | None

    def macro_f1(self, compiled: Any, rows: Iterable[int]) -> tuple[float, list[list[np.ndarray]]]:
        """Macro-F1 of a compiled model on some rows, and the logits of each, by which NNCF ranks what to undo."""
        chosen = list(rows)
        logits = [compiled(_feed(self.ids[i]))[0] for i in chosen]  # each (1, labels)
        predicted = apply_threshold(softmax(np.concatenate(logits)), self.threshold)
        return macro_f1(self.labels[chosen], predicted, self.names), [[row] for row in logits]


def _feed(ids: Sequence[int]) -> dict[str, np.ndarray]:
    """One text as a batch of its own: where none is padded, no padding has a say in the ranges."""
    return {"input_ids": np.array([ids], dtype=np.int64), "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}


def _quantized(single: Path, calibration: Sequence[Sequence[int]]) -> Any:
    """The graph in `single` in eight bits; NNCF's transformer scheme smooths outliers and leaves softmax in float."""
    nncf, openvino = quiet_nncf()
    return nncf.quantize(
        openvino.Core().read_model(single / SINGLE_FILE),
        nncf.Dataset(calibration, _feed),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
        advanced_parameters=_portable(nncf),
    )


def _portable(nncf: Any) -> Any:
    """Return the setting that gives weights seven bits: with eight, 16-bit sums saturate on x86 without VNNI."""
    return nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)


def _controlled(single: Path, calibration: Sequence[Sequence[int]], rows: _Rows, max_drop: float) -> Any:
    """As `_quantized`, but what costs most goes back to float until macro-F1 on `rows` drops by at most `max_drop`.

    The weights of what went back are stored in eight bits all the same where that keeps to `max_drop` too.
    """
    nncf, openvino = quiet_nncf()
    core = openvino.Core()
    model = core.read_model(single / SINGLE_FILE)
    everything = range(len(rows.ids))
    found = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(calibration, _feed),
        nncf.Dataset(everything, lambda row: _feed(rows.ids[row])),
        rows.macro_f1,
        max_drop=max_drop,
        drop_type=nncf.DropType.ABSOLUTE,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
        advanced_quantization_parameters=_portable(nncf),
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(num_ranking_workers=1),
    )

    def score(graph: Any) -> float:
        return rows.macro_f1(core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), everything)[0]

    smaller = nncf.compress_weights(found.clone(), mode=nncf.CompressWeightsMode.INT8_SYM)
    return smaller if score(smaller) >= score(core.read_model(single / SINGLE_FILE)) - max_drop else found


def _save(graph: Any, folder: Path) -> dict[str, Any]:
    """Write model.xml and model.bin; returns how many activations have eight bits."""
    import openvino

    openvino.save_model(graph, folder / MODEL_FILE, compress_to_fp16=False)
    return {"int8_activations": sum(each.get_type_name() == "FakeQuantize" for each in graph.get_ops())}


def quiet_nncf() -> tuple[Any, Any]:
    """The modules nncf and openvino, imported so that they neither print nor send anything.

    Both report each use to Google Analytics unless asked not to, and keep an id for it in the home folder; the switch
    is a file in that folder or the variable CI, which others heed too. Without openvino_telemetry they do neither.
    """
    import logging

    if "nncf" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # importing it logs to standard output and resets its own logger
    try:
        import nncf
        from nncf.common.logging import track_progress
    finally:
        logging.disable(before)
    import openvino

    nncf.set_log_level(logging.ERROR)
    for bar in ("Progress", "WeightedProgress"):  # there is no switch for its progress bars
        made = getattr(track_progress, bar)
        if not isinstance(made, _Unseen):
            setattr(track_progress, bar, _Unseen(made))
    return nncf, openvino


class _Unseen:
    """Makes progress bars that are not drawn."""

    def __init__(self, bar: Callable[..., Any]) -> None:
        self.bar = bar

    def __call__(self, *columns: Any, **options: Any) -> Any:
        return self.bar(*columns, **options | {"disable": True})


EXPORTER = OpenvinoInt8()

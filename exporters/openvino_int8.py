"""openvino-int8: int8 matrices, activations and embeddings, quantized by NNCF and run by OpenVINO."""

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exporters.loaders.compose import load_package, loader_source
from exporters.onnx_fp32 import MODEL_FILE as REFERENCE_FILE, missing_modules
from exporters.registry import Candidate, Evidence, LoadedArtifact
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.utils.errors import InputError

if TYPE_CHECKING:
    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

MODEL_FILE = "model.xml"
"""The graph; its weights are in model.bin in the same folder."""


@dataclass(frozen=True)
class OpenvinoInt8:
    """See `exporters.registry.Exporter`."""

    name: str = "openvino-int8"
    summary: str = "OpenVINO, int8 weights, activations and embeddings, ranges from training texts"
    promise: Literal["faster", "smaller", "same"] = "faster"
    reference: str | None = "onnx-fp32"
    file: str = MODEL_FILE
    distributions: tuple[str, ...] = ("openvino", "tokenizers", "numpy")

    def available(self) -> str | None:
        needed = missing_modules("openvino", "nncf", install="'hbt-toolkit[openvino]'")
        return needed or missing_modules("onnx", "onnxruntime")

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
    ) -> list[Candidate]:
        from toolkit.modeling.ngram import NgramNetwork
        from toolkit.modeling.tokenizer import encode

        if isinstance(classifier.network, NgramNetwork):
            raise InputError(
                f"--target {self.name}: an ngram student has no matrices to quantize; use --target onnx-int8"
            )
        ids_of = functools.partial(encode, classifier.tokenizer)

        def plain(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
            return _save(_quantized(reference, ids_of(evidence.calibration)), folder)

        def controlled(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
            rows = _Rows(ids_of(evidence.validation), evidence.labels, len(classifier.labels), evidence.rule)
            return _save(_controlled(reference, ids_of(evidence.calibration), rows, settings.max_drop), folder)

        found = [Candidate("static, smoothed", plain), Candidate("static, smoothed, accuracy control", controlled)]
        return found[:1] if settings.search == "off" else found

    def loader(self, folder: Path) -> str:
        return loader_source("openvino")

    def needs(self, folder: Path) -> tuple[str, ...]:
        return self.distributions

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtifact:
        return load_package("openvino", folder, threads)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Validation rows in the format of NNCF, and the metric for its accuracy control."""

    ids: Sequence[Sequence[int]]
    labels: np.ndarray
    """int (rows,)"""
    names: int
    """Number of labels."""
    rule: DecisionRule

    def macro_f1(self, compiled: Any, rows: Iterable[int]) -> tuple[float, list[list[np.ndarray]]]:
        """Return macro-F1 of a compiled model on `rows`, and their logits, by which NNCF ranks the operations."""
        chosen = list(rows)
        logits = [compiled(_feed(self.ids[i]))[0] for i in chosen]  # each (1, labels)
        predicted = self.rule.predict(softmax(np.concatenate(logits)))
        return macro_f1(self.labels[chosen], predicted, self.names), [[row] for row in logits]


def _feed(ids: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the inputs for a batch of one text: without padding, so that padding does not affect the ranges."""
    return {"input_ids": np.array([ids], dtype=np.int64), "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}


def _quantized(reference: Path, calibration: Sequence[Sequence[int]]) -> Any:
    """Return the int8 graph of `reference`; NNCF's transformer scheme smooths outliers and keeps softmax in float."""
    nncf, openvino = quiet_nncf()
    return nncf.quantize(
        openvino.Core().read_model(reference / REFERENCE_FILE),
        nncf.Dataset(calibration, _feed),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
        advanced_parameters=_portable(nncf),
    )


def _portable(nncf: Any) -> Any:
    """Return the setting for 7-bit weights: with 8 bits, 16-bit sums can saturate on x86 without VNNI."""
    return nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)


def _controlled(reference: Path, calibration: Sequence[Sequence[int]], rows: _Rows, max_drop: float) -> Any:
    """Return the int8 graph with accuracy control: macro-F1 on `rows` drops by at most `max_drop`.

    The operations that cost most accuracy are reverted to float. Their weights are still stored as int8 if that
    keeps the drop within `max_drop`, too.
    """
    nncf, openvino = quiet_nncf()
    core = openvino.Core()
    model = core.read_model(reference / REFERENCE_FILE)
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
    return smaller if score(smaller) >= score(core.read_model(reference / REFERENCE_FILE)) - max_drop else found


def _save(graph: Any, folder: Path) -> dict[str, Any]:
    """Write model.xml and model.bin; return the number of int8 activations."""
    import openvino

    openvino.save_model(graph, folder / MODEL_FILE, compress_to_fp16=False)
    return {"int8_activations": sum(each.get_type_name() == "FakeQuantize" for each in graph.get_ops())}


def quiet_nncf() -> tuple[Any, Any]:
    """Import nncf and openvino without output and telemetry, and return both modules.

    Both report usage to Google Analytics by default and store an id in the home folder. The opt-out is a file in that
    folder or the variable CI, which also affects other programs. Without openvino_telemetry they do neither.
    """
    import logging

    if "nncf" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # importing nncf logs to standard output and resets its logger
    try:
        import nncf
        from nncf.common.logging import track_progress
    finally:
        logging.disable(before)
    import openvino

    nncf.set_log_level(logging.ERROR)
    for bar in ("Progress", "WeightedProgress"):  # nncf has no option to disable its progress bars
        original = getattr(track_progress, bar)
        if not isinstance(original, _HiddenBars):
            setattr(track_progress, bar, _HiddenBars(original))
    return nncf, openvino


class _HiddenBars:
    """Create progress bars that are not displayed."""

    def __init__(self, bar: Callable[..., Any]) -> None:
        self.bar = bar

    def __call__(self, *columns: Any, **options: Any) -> Any:
        return self.bar(*columns, **options | {"disable": True})


EXPORTER = OpenvinoInt8()

"""What to do where a target is not possible: refuse it early, or let torch-int8 stand in for onnx-int8."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from exporters.registry import Evidence, exporter
from toolkit.classifier import Classifier
from toolkit.compression import Source, compress
from toolkit.errors import CannotExport, InputError, refuse_existing
from toolkit.ngram import PAD_ID, NgramConfig, NgramNetwork, character_tokenizer
from toolkit.progress import say
from toolkit.recipe import ExportSettings
from toolkit.stage import Predictions, StageResult

WITH_FALLBACK, FALLBACK = "onnx-int8", "torch-int8"
"""For a classifier that ONNX cannot take, the second stands in for the first."""


def compress_or_stand_in(
    source: Source, export: ExportSettings, out: Path, force: bool, tuned: Classifier | None
) -> tuple[StageResult, Predictions]:
    """`compress`, with torch-int8 in the place of onnx-int8 for a classifier that ONNX cannot take.

    Raises: InputError for another target of such a classifier.
    """
    try:
        return compress(source, export, out, force, tuned)
    except CannotExport as error:
        if export.target != WITH_FALLBACK:
            mend = f"--target {FALLBACK} does without"
            raise InputError(f"--target {export.target}: this classifier has no ONNX form ({error}); {mend}") from error
        say(f"{export.target}: not possible for this classifier ({error}); {FALLBACK} takes its place")
    out = fallback_folder(out)
    refuse_existing(out, force)
    instead = replace(export, target=FALLBACK, quant_method=None, quant_dtype=None)
    return compress(source, instead, out, force)


def fallback_folder(out: Path) -> Path:
    """Where a package goes whose target was replaced: under the name of what it is."""
    return out.with_name(out.name.replace(WITH_FALLBACK, FALLBACK))


def refuse_for_ngram(export: ExportSettings) -> None:
    """Raises InputError if the target has no form of an ngram student, before one is trained."""
    untaught = Classifier(NgramNetwork(NgramConfig(2, 1)), character_tokenizer([""]), PAD_ID, ("0", "1"), 0.5)
    if export.quant_method == "qat":
        raise InputError("--quant-method qat: an ngram student has no layers to train under rounding; leave it out")
    nothing = Evidence([], [], np.zeros(0, dtype=np.int64), 0.5)
    exporter(export.target).candidates(untaught, nothing, export, Path())


def refuse_unready(export: ExportSettings) -> None:
    """Raises InputError if the target is not known or cannot be made here, and no other takes its place."""
    reason = exporter(export.target).available()
    if reason is not None and export.target != WITH_FALLBACK:
        raise InputError(f"--target {export.target}: {reason}")

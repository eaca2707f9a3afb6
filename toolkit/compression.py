"""The export stage: a classifier in, a checked and measured package out."""

import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from exporters.registry import Artefact, Exporter, LoadedArtefact, exporter
from toolkit import package
from toolkit.card import write_card
from toolkit.classifier import TOKENIZER_FILE, Classifier
from toolkit.comparisons import Contender, versus
from toolkit.corpus import Corpus
from toolkit.demo import DEMO_SENTENCES
from toolkit.errors import InputError
from toolkit.latency import median_latency_ms
from toolkit.metrics import apply_threshold
from toolkit.progress import working
from toolkit.stage import Predictions, StageResult, evaluate, folder_size, whole_folder
from toolkit.summary import Row
from toolkit.tokenizer import save_tokenizer
from toolkit.vocabulary import Trimming

TORCH_FORM = "itself in torch, fp32"
BATCH = 32
LOGIT_TOLERANCE = 1e-3
"""An ONNX graph in single precision whose logits are further from torch than this is not the same model."""


@dataclass(frozen=True)
class Source:
    """What is exported, and what is known of it."""

    classifier: Classifier
    name: str
    corpus: Corpus
    predictions: Predictions
    """Of the classifier in torch, on validation and test rows."""
    lineage: dict[str, Any]
    """Where it comes from, for the manifest and the card."""
    rows: list[Row]
    """What is shown beside it: floor, teacher, its own fp32 form; in this order."""
    beside: list[Contender]
    """What the artefact is compared with on the same rows, beside its own form in torch."""
    pruned: str | None = None
    """How it was pruned."""
    trimming: Trimming | None = None
    """What was cut from the classifier's vocabulary, which changes none of its predictions on the corpus."""


def compress(source: Source, target: str, out: Path) -> tuple[StageResult, Predictions]:
    """Export, check, evaluate and package `source` as the folder `out`.

    Returns: the result, and the artefact's predictions on validation and test rows.
    Raises: InputError if the target cannot be made here.
    """
    started = time.monotonic()
    how = exporter(target)
    reason = how.available()
    if reason is not None:
        raise InputError(f"--target {target}: {reason}")
    validation = source.corpus.take(source.corpus.rows("validation"))
    threshold = _threshold(source)
    shutil.rmtree(out.with_name(out.name + ".partial"), ignore_errors=True)  # of an export that was broken off
    with whole_folder(out) as partial:
        with working(f"{target}: exporting"):
            artefact = how.export(source.classifier, validation, partial)
        gap = artefact.details["fp32_logit_gap"]
        if gap > LOGIT_TOLERANCE:
            raise RuntimeError(f"the exported graph's logits differ from torch by {gap:.2g}")
        tokenizer, pad_id = source.classifier.tokenizer, source.classifier.pad_id
        save_tokenizer(tokenizer, pad_id, partial / TOKENIZER_FILE)
        package.write_loading_files(partial, source.classifier, threshold, how)
        model = how.load(partial)
        with working(f"{target}: evaluating on {len(source.predictions.rows)} rows"):
            result, predictions = _evaluate(source, artefact, model, threshold)
        result = _finish_package(source, how, model, result, partial)
    details = result.details | {"package": out.as_posix(), "package_size_bytes": folder_size(out)}
    return replace(result, seconds=time.monotonic() - started, details=details), predictions


def rows_of(result: StageResult) -> list[Row]:
    """The rows of an exported artefact in a table."""
    name = result.details["name"]
    own = Row(name, result.metrics, result.size_bytes, result.parameters, result.details["p50_ms"])
    return [own, *(Row(name, metrics, slice=part) for part, metrics in result.slices.items())]


def _evaluate(
    source: Source, artefact: Artefact, model: LoadedArtefact, threshold: float | None
) -> tuple[StageResult, Predictions]:
    corpus, rows = source.corpus, source.predictions.rows
    predictions = Predictions(rows, model.predict_logits(corpus.take(rows)))
    validation, test, slices = evaluate(corpus, predictions, threshold)
    result = StageResult(
        stage="quantization" if "int8" in artefact.target else "export",
        checkpoint=artefact.file.name,
        metrics=test,
        validation_metrics=validation,
        threshold=threshold,
        parameters=source.classifier.parameters,
        size_bytes=artefact.file.stat().st_size,
        seconds=0.0,
        slices=slices,
        details=artefact.details
        | ({} if source.trimming is None else {"trimming": asdict(source.trimming)})
        | {
            "target": artefact.target,
            "name": artefact.target if source.pruned is None else f"{artefact.target}, pruned {source.pruned}",
            "invariance": batch_invariance(model, corpus.take(corpus.rows("validation"))),
            "versus": [
                asdict(versus(corpus, Contender(artefact.target, predictions, threshold), other))
                for other in (Contender(TORCH_FORM, source.predictions, threshold), *source.beside)
            ],
        },
    )
    return result, predictions


def batch_invariance(model: LoadedArtefact, texts: list[str]) -> dict[str, Any]:
    """How far scores move, and how many labels flip, when a text is scored among others and not alone."""
    alone, among = model.predict_proba(texts), model.predict_proba(texts, batch_size=BATCH)
    flips = apply_threshold(alone, model.threshold) != apply_threshold(among, model.threshold)
    return {
        "rows": len(texts),
        "batch": BATCH,
        "largest_score_difference": float(np.abs(alone - among).max()),
        "label_flips": int(flips.sum()),
    }


def _threshold(source: Source) -> float | None:
    """The classifier's own; chosen on validation rows where an imported model has none."""
    if source.classifier.threshold is not None:
        return source.classifier.threshold
    return evaluate(source.corpus, source.predictions)[0].get("best_threshold")


def _finish_package(
    source: Source, how: Exporter, model: LoadedArtefact, result: StageResult, folder: Path
) -> StageResult:
    """Measure latency, then write card and manifest."""
    machine = describe_machine()
    golden = package.golden_scores(model, list(DEMO_SENTENCES))
    # The worker loads packages, and a package has a manifest: this one is written again over the card.
    package.write_manifest(folder, how, machine.isa, source.lineage, golden)
    with working(f"{how.name}: measuring latency"):
        latency = median_latency_ms("package", folder, source.corpus.take(source.corpus.rows("test")))
    result = replace(result, details=result.details | {"p50_ms": latency})
    rows = [*source.rows, *rows_of(result)]
    write_card(folder, source.name, source.corpus, rows, result, source.lineage, machine)
    package.write_manifest(folder, how, machine.isa, source.lineage, golden)
    return result


def lineage_of(corpus: Corpus, **more: Any) -> dict[str, Any]:
    """What a manifest says of the origin: enough to rebuild the same test rows from the same file."""
    settings = asdict(corpus.settings)
    return {"corpus": corpus.name, "corpus_fingerprint": corpus.fingerprint, "corpus_settings": settings} | more

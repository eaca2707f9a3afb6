"""The export stage: a classifier in, a checked and measured package out."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from exporters.registry import Exporter, LoadedArtefact, exporter
from toolkit import package
from toolkit.card import write_card
from toolkit.classifier import TOKENIZER_FILE, Classifier
from toolkit.corpus import Corpus
from toolkit.demo import DEMO_SENTENCES
from toolkit.distillation import versus
from toolkit.errors import InputError
from toolkit.latency import median_latency_ms
from toolkit.metrics import apply_threshold
from toolkit.progress import say
from toolkit.stage import Predictions, StageResult, evaluate, folder_size, whole_folder
from toolkit.summary import Row
from toolkit.tokenizer import save_tokenizer

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
    rows: list[Row]
    """What is shown beside it: floor, teacher, its own fp32 form; in this order."""
    lineage: dict[str, Any]
    """Where it comes from, for the manifest and the card."""


def compress(source: Source, target: str, out: Path) -> tuple[StageResult, Predictions, list[Row]]:
    """Export, check, evaluate and package `source` as the folder `out`.

    Returns: the result, the artefact's predictions on validation and test rows, and the rows of the table.
    Raises: InputError if the target cannot be made here.
    """
    started = time.monotonic()
    how = exporter(target)
    reason = how.available()
    if reason is not None:
        raise InputError(f"--target {target}: {reason}")
    corpus = source.corpus
    validation = corpus.take(corpus.rows("validation"))
    threshold = _threshold(source)
    with whole_folder(out) as partial:
        for left_over in partial.iterdir():
            left_over.unlink()
        say(f"{target}: exporting")
        artefact = how.export(source.classifier, validation, partial)
        gap = artefact.details["fp32_logit_gap"]
        if gap > LOGIT_TOLERANCE:
            raise RuntimeError(f"the exported graph's logits differ from torch by {gap:.2g}")
        save_tokenizer(source.classifier.tokenizer, source.classifier.pad_id, partial / TOKENIZER_FILE)
        package.write_loading_files(partial, source.classifier, threshold, how)
        model = how.load(partial)
        say(f"{target}: evaluating on {len(source.predictions.rows)} rows")
        predictions = Predictions(source.predictions.rows, model.predict_logits(corpus.take(source.predictions.rows)))
        _, test, slices = evaluate(corpus, predictions, threshold)
        validation_metrics = evaluate(corpus, predictions, threshold)[0]
        details = artefact.details | {
            "invariance": batch_invariance(model, validation),
            "versus_fp32": versus(corpus, predictions, threshold, source.predictions, threshold),
        }
        result = StageResult(
            stage="quantization" if "int8" in target else "export",
            checkpoint=artefact.file.name,
            metrics=test,
            validation_metrics=validation_metrics,
            threshold=threshold,
            parameters=source.classifier.parameters,
            size_bytes=artefact.file.stat().st_size,
            seconds=0.0,
            slices=slices,
            details=details | {"target": target},
        )
        rows = _finish_package(source, how, model, result, partial)
    seconds = time.monotonic() - started
    package_bytes = folder_size(out)
    return _with(result, seconds, {"package": str(out), "package_size_bytes": package_bytes}), predictions, rows


def batch_invariance(model: LoadedArtefact, texts: list[str]) -> dict[str, Any]:
    """How far scores move, and how many labels flip, when a text is scored among others and not alone."""
    alone = np.concatenate([model.predict_proba([text]) for text in texts])
    among = model.predict_proba(texts)
    flips = apply_threshold(alone, model.threshold) != apply_threshold(among, model.threshold)
    return {
        "rows": len(texts),
        "batch": 32,
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
) -> list[Row]:
    """Measure latency, then write card and manifest."""
    machine = describe_machine()
    golden = package.golden_scores(model, list(DEMO_SENTENCES))
    # The worker loads packages, and a package has a manifest: this one is written again over the card.
    package.write_manifest(folder, how, machine.isa, source.lineage, golden)
    say(f"{how.name}: measuring latency")
    test_texts = source.corpus.take(source.corpus.rows("test"))
    own = Row(
        how.name,
        result.metrics,
        result.size_bytes,
        result.parameters,
        median_latency_ms("package", folder, test_texts),
    )
    rows = [*source.rows, own]
    rows += [Row(how.name, metrics, slice=part) for part, metrics in result.slices.items()]
    write_card(folder, source.name, source.corpus, rows, result, source.lineage, machine)
    package.write_manifest(folder, how, machine.isa, source.lineage, golden)
    return rows


def _with(result: StageResult, seconds: float, details: dict[str, Any]) -> StageResult:
    from dataclasses import replace

    return replace(result, seconds=seconds, details=result.details | details)


def lineage_of(corpus: Corpus, **more: Any) -> dict[str, Any]:
    """What a manifest says of the origin: enough to rebuild the same test rows from the same file."""
    from dataclasses import asdict

    settings = json.loads(json.dumps(asdict(corpus.settings)))
    return {"corpus": corpus.name, "corpus_fingerprint": corpus.fingerprint, "corpus_settings": settings} | more

"""Hyperparameters of the n-gram student.

Run `python -m benchmarks.studies.ngram_hyperparameters --teacher RUN --unlabelled FILE`.

Fits the n-gram student with one hyperparameter changed at a time and compares cross-entropy, ROC-AUC and macro-F1 on
validation rows, each at its best ridge penalty. Also reports how much two int8 quantization schemes of the table change
its logits. Test rows are not used. Each finished fit appends one line to --out and is not repeated.
"""

import argparse
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies import results_log
from exporters.ngram.tables import quantize_table
from toolkit.config.recipe import Recipe
from toolkit.config.settings import DistillationSettings
from toolkit.config.toml_file import recipe_from
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.evaluation.metrics import calculate_metrics_with_threshold_exploration, cross_entropy, softmax
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import PAD_ID, NgramNetwork, character_tokenizer
from toolkit.stages.distillation_data import prepare_distillation
from toolkit.stages.run_folder import RECIPE_FILE
from toolkit.training.dataset import Examples
from toolkit.training.ngram.regression import (
    BATCH,
    LABEL_LOGIT,
    RATIO_POWER,
    RIDGES,
    network_of,
    ratio_scales,
    regress,
    tfidf,
    wanted_outputs,
)
from toolkit.utils.console import print_table


@dataclass(frozen=True)
class Choice:
    """Hyperparameters of the student and its training data; one at a time is changed from these defaults."""

    ratio_power: float = RATIO_POWER
    label_logit: float = LABEL_LOGIT
    kd_alpha: float = DistillationSettings.kd_alpha
    bits: int = 17
    blend_floor: bool = False
    further: bool = True
    """Whether the unlabeled texts are used."""


CHANGES: dict[str, tuple[Any, ...]] = {
    "ratio_power": (0.0, 1.0, 1.5, 2.0),
    "label_logit": (2.0, 3.0, 4.0, 6.0),
    "kd_alpha": (0.0, 0.5, 0.7, 0.85, 1.0),
    "bits": (12, 14, 16, 17, 18, 20),
    "blend_floor": (False, True),
    "further": (False, True),
}


def main() -> None:
    given = _arguments()
    run, file = Path(given.teacher), Path(given.out)
    recipe = recipe_from(run / RECIPE_FILE, {"data": given.data} if given.data else {})
    corpus = load_corpus(recipe.corpus)
    for name in given.settings:
        for value in CHANGES[name]:
            choice = replace(Choice(), **{name: value})
            if not results_log.contains(file, asdict(choice)):
                results_log.append(file, asdict(choice) | fitted(choice, corpus, run, given.unlabelled))
    report(results_log.lines(file), given.settings)


def fitted(choice: Choice, corpus: Corpus, run: Path, unlabelled: str) -> dict[str, float]:
    """Fit one choice; return validation metrics at its best penalty, used table rows and fitting time in seconds."""
    settings = DistillationSettings(
        student=f"ngram:{choice.bits}",
        teacher=(str(run),),
        unlabelled=unlabelled if choice.further else None,
        blend_floor=choice.blend_floor,
    )
    data = prepare_distillation(Recipe(distillation=settings), corpus, None)
    assert data.train.teacher_logits is not None
    started = time.monotonic()
    tokenizer = character_tokenizer(data.train.texts)
    features = tfidf(tokenizer, data.train.texts, 2**choice.bits)
    targets = wanted_outputs(data.train.teacher_logits, data.train.labels, choice.kd_alpha, choice.label_logit)
    scales = ratio_scales(features.matrix, targets, choice.ratio_power)
    tried = []
    for ridge in RIDGES:
        network = network_of(features.rows, *regress(features.matrix, targets, scales, ridge))
        student = Classifier(network, tokenizer, PAD_ID, corpus.label_names)
        found = judged(student, data.validation)
        tried.append((found["val_loss"], ridge, found, student))
    _, ridge, found, student = min(tried, key=lambda each: each[0])
    metrics = {name: found[f"val_{name}"] for name in ("loss", "roc_auc", "macro_f1")}
    seconds = time.monotonic() - started
    used = float((features.rows.squared_idf > 0).sum())
    changes = _int8_changes(student, data.validation.texts)
    return metrics | {"ridge": ridge, "rows_used": used, "seconds": seconds} | changes


def judged(student: Classifier, validation: Examples) -> dict[str, float]:
    """Return cross-entropy and metrics of `student` on validation rows, with the prefix `val_`."""
    probabilities = softmax(student.predict_logits(validation.texts, BATCH).astype(np.float64))
    metrics = calculate_metrics_with_threshold_exploration(validation.labels, probabilities)
    loss = cross_entropy(validation.labels, probabilities)
    return {"val_loss": loss} | {f"val_{name}": value for name, value in metrics.items()}


def _int8_changes(student: Classifier, texts: Any) -> dict[str, float]:
    """Return the mean absolute change of a logit by int8 quantization, with squared steps and with equal steps."""
    network = student.network
    assert isinstance(network, NgramNetwork)
    values = network.table.detach().numpy()
    stored = quantize_table(network)
    codes = stored.values.astype(np.float64)
    largest = np.maximum(np.abs(values).max(axis=0), 1e-12)
    tables = {"squared_steps": codes * np.abs(codes) * stored.scales, "equal_steps": np.rint(values / largest * 127)}
    tables["equal_steps"] *= largest / 127
    exact = student.predict_logits(texts, BATCH)
    changes = {}
    for name, table in tables.items():
        other = NgramNetwork(network.config)
        other.table.data, other.intercept.data = torch.from_numpy(table.astype(np.float32)), network.intercept.data
        logits = replace(student, network=other.eval()).predict_logits(texts, BATCH)
        changes[name] = float(np.abs(logits - exact).mean())
    return changes


def report(lines: list[dict[str, Any]], settings: list[str]) -> None:
    """Print one table per hyperparameter."""
    defaults = asdict(Choice())
    for name in settings:
        chosen = [line for line in lines if all(line[other] == defaults[other] for other in defaults if other != name)]
        table = [
            {
                name: str(line[name]),
                "Cross-entropy": f"{line['loss']:.4f}",
                "ROC-AUC": f"{line['roc_auc']:.4f}",
                "Macro F1": f"{line['macro_f1']:.4f}",
                "Penalty": f"{line['ridge']:g}",
                "Rows used": f"{line['rows_used']:,.0f}",
                "int8 change": f"{line['squared_steps']:.4f}",
                "int8 change, equal steps": f"{line['equal_steps']:.4f}",
            }
            for line in sorted(chosen, key=lambda line: line[name])
        ]
        print_table(table, f"validation rows, by {name}")


def _arguments() -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")[2]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.ngram_hyperparameters", description=summary)
    parser.add_argument("--teacher", required=True, help="run folder with a finished baseline")
    parser.add_argument("--unlabelled", required=True, help="file of unlabeled texts")
    parser.add_argument("--data", help="data file of the run, if it was moved")
    parser.add_argument(
        "--settings", nargs="+", default=list(CHANGES), choices=CHANGES, help="hyperparameters to vary (default: all)"
    )
    parser.add_argument("--out", default="ngram-choices.jsonl", help="file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Where the n-gram student's constants come from: `python -m benchmarks.ngram_choices --teacher RUN --unlabelled FILE`.

Fits the student of one teacher run with one setting changed at a time and compares cross-entropy, ROC-AUC and
macro-F1 on validation rows, at the weight of the penalty that is best for each. Also how far two ways of storing the
table in eight bits move its logits on these rows. The test rows are not looked at. Every fit appends one line to
--out as it ends, and what is there already is not fitted again.
"""

import argparse
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies import results_log as ledger
from exporters.ngram_graph import quantize_table
from toolkit.config.recipe import Recipe
from toolkit.config.settings import DistillationSettings
from toolkit.config.toml_file import recipe_from
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.ngram import PAD_ID, NgramNetwork, character_tokenizer
from toolkit.stages.distillation_data import prepare_distillation
from toolkit.stages.run_folder import RECIPE_FILE
from toolkit.training.ngram_regression import (
    BATCH,
    LABEL_LOGIT,
    RATIO_POWER,
    RIDGES,
    judged,
    network_of,
    ratio_scales,
    regress,
    tfidf,
    wanted_outputs,
)
from toolkit.utils.console import print_table


@dataclass(frozen=True)
class Choice:
    """One setting of the student, and what it learns from."""

    ratio_power: float = RATIO_POWER
    label_logit: float = LABEL_LOGIT
    kd_alpha: float = DistillationSettings.kd_alpha
    bits: int = 17
    blend_floor: bool = False
    further: bool = True
    """Whether the unlabeled texts are learned from too."""


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
            if not ledger.is_there(file, asdict(choice)):
                ledger.append(file, asdict(choice) | fitted(choice, corpus, run, given.unlabelled))
    report(ledger.lines(file), given.settings)


def fitted(choice: Choice, corpus: Corpus, run: Path, unlabelled: str) -> dict[str, float]:
    """Validation figures of one choice at its best weight of the penalty, its size, and its seconds."""
    how = DistillationSettings(
        student=f"ngram:{choice.bits}",
        teacher=(str(run),),
        unlabelled=unlabelled if choice.further else None,
        blend_floor=choice.blend_floor,
    )
    data = prepare_distillation(Recipe(distillation=how), corpus, None)
    assert data.train.teacher_logits is not None
    started = time.monotonic()
    tokenizer = character_tokenizer(data.train.texts)
    features = tfidf(tokenizer, data.train.texts, 2**choice.bits)
    wanted = wanted_outputs(data.train.teacher_logits, data.train.labels, choice.kd_alpha, choice.label_logit)
    scales = ratio_scales(features.matrix, wanted, choice.ratio_power)
    tried = []
    for ridge in RIDGES:
        network = network_of(features, *regress(features.matrix, wanted, scales, ridge))
        student = Classifier(network, tokenizer, PAD_ID, corpus.label_names)
        found = judged(student, data.validation)
        tried.append((found["val_loss"], ridge, found, student))
    _, ridge, found, student = min(tried, key=lambda each: each[0])
    kept = {name: found[f"val_{name}"] for name in ("loss", "roc_auc", "macro_f1")}
    seconds = time.monotonic() - started
    used = float((features.squared_idf > 0).sum())
    return kept | {"ridge": ridge, "rows_used": used, "seconds": seconds} | _moved(student, data.validation.texts)


def _moved(student: Classifier, texts: Any) -> dict[str, float]:
    """Mean change of a logit by a table in eight bits: in steps that grow with the value, and in equal steps."""
    network = student.network
    assert isinstance(network, NgramNetwork)
    values = network.table.detach().numpy()
    stored = quantize_table(network)
    codes = stored.values.astype(np.float64)
    reach = np.maximum(np.abs(values).max(axis=0), 1e-12)
    tables = {"squared_steps": codes * np.abs(codes) * stored.scales, "equal_steps": np.rint(values / reach * 127)}
    tables["equal_steps"] *= reach / 127
    exact = student.predict_logits(texts, BATCH)
    moved = {}
    for name, table in tables.items():
        other = NgramNetwork(network.config)
        other.table.data, other.intercept.data = torch.from_numpy(table.astype(np.float32)), network.intercept.data
        logits = replace(student, network=other.eval()).predict_logits(texts, BATCH)
        moved[name] = float(np.abs(logits - exact).mean())
    return moved


def report(lines: list[dict[str, Any]], settings: list[str]) -> None:
    """Print a table a setting."""
    usual = asdict(Choice())
    for name in settings:
        chosen = [line for line in lines if all(line[other] == usual[other] for other in usual if other != name)]
        table = [
            {
                name: str(line[name]),
                "Cross-entropy": f"{line['loss']:.4f}",
                "ROC-AUC": f"{line['roc_auc']:.4f}",
                "Macro F1": f"{line['macro_f1']:.4f}",
                "Penalty": f"{line['ridge']:g}",
                "Rows used": f"{line['rows_used']:,.0f}",
                "int8 moves": f"{line['squared_steps']:.4f}",
                "equal steps": f"{line['equal_steps']:.4f}",
            }
            for line in sorted(chosen, key=lambda line: line[name])
        ]
        print_table(table, f"on validation rows, by {name}")


def _arguments() -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ngram_choices", description=summary)
    parser.add_argument("--teacher", required=True, help="run folder with a finished baseline")
    parser.add_argument("--unlabelled", required=True, help="texts that only the teacher labels")
    parser.add_argument("--data", help="where the run's data lie now")
    parser.add_argument("--settings", nargs="+", default=list(CHANGES), choices=CHANGES, help="which (default: all)")
    parser.add_argument("--out", default="ngram-choices.jsonl", help="file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    main()

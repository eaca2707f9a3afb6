"""The names under which settings and metrics of a run are logged to MLflow."""

import statistics
from pathlib import Path

from toolkit.config.recipe import DESCRIPTIONS
from toolkit.data.corpus import describe_split
from toolkit.evaluation.label_keys import label_keys
from toolkit.export.reliability.calibration_facts import DIAGRAM_FILE
from toolkit.stages.cross_validation import FoldResult
from toolkit.stages.result import StageResult
from toolkit.stages.run_folder import CORPUS_FILE, RECIPE_FILE, Run
from toolkit.tracking.mlflow_runs import Tracked
from toolkit.utils.files import MB

EPOCH_METRICS = ("val_accuracy", "val_macro_f1", "val_roc_auc", "val_loss", "train_loss")
"""Metrics of each epoch and fold that are logged to the parent run; the nested run of a fold has all of them."""


def track_settings(tracked: Tracked, run: Run) -> None:
    """Log every setting as a parameter, the corpus as a dataset input, and the files of both as artifacts, once."""
    with tracked.part("settings") as owed:
        if owed:
            _track_settings(tracked, run)
    tracked.send()


def _track_settings(tracked: Tracked, run: Run) -> None:
    recipe, corpus = run.recipe, run.corpus
    tracked.parameters(
        {
            "pipeline_description": DESCRIPTIONS[recipe.run.pipeline],
            "enable_kd": recipe.distillation.student is not None,
            "enable_pruning": recipe.prunes,
            "enable_quantization": recipe.exports,
            "model_path": recipe.model.model,
            "student_path": recipe.distillation.student or "",
            "corpus_fingerprint": corpus.fingerprint,
            "recipe_sha256": recipe.sha256(),
            "run_folder": run.folder.as_posix(),
        }
        | {name: "" if value is None else value for name, value in recipe.flat().items()}
        | {
            "quant_method": recipe.export.quant_method or f"search {recipe.export.search}",
            "quant_dtype": recipe.export.quant_dtype or recipe.export.target.split("-")[-1],
        }
    )
    tracked.corpus(corpus, describe_split(corpus)["counts"])
    tracked.artifact(run.folder / RECIPE_FILE)
    tracked.artifact(run.folder / CORPUS_FILE)


def track_epoch(tracked: Tracked, child: str, epoch: int, metrics: dict[str, float]) -> None:
    """Log one epoch to the nested run; for a fold, also to the parent run under names with fold and epoch."""
    tracked.child(child).metrics(metrics, epoch)
    if child.startswith("fold-"):
        prefix = f"{child.replace('-', '_')}_epoch_{epoch}"
        tracked.metrics({f"{prefix}_{name}": metrics[name] for name in EPOCH_METRICS if name in metrics})


def track_baseline(tracked: Tracked, folds: list[FoldResult], result: StageResult) -> None:
    """Log each fold at its best epoch, mean and standard deviation over folds, and test metrics of the ensemble."""
    for fold in folds:
        child = tracked.child(f"fold-{fold.fold + 1}")
        child.metrics({f"best_val_{name}": value for name, value in fold.val.items()})
        child.metrics({f"best_train_{name}": value for name, value in fold.train.items()})
    for name in (name for name in folds[0].val if "_th_" not in name):
        values = [fold.val[name] for fold in folds]
        tracked.metrics({f"mean_val_{name}": statistics.mean(values), f"std_val_{name}": statistics.stdev(values)})
    tracked.metrics({f"baseline_{name}": value for name, value in result.metrics.items()})
    details = result.details
    tracked.metrics({"best_fold": details["best_fold"] + 1, "total_parameters": folds[0].total_parameters})
    track_teacher(tracked, details["best_fold_parameters"], details["best_fold_size_bytes"])


def track_teacher(tracked: Tracked, parameters: int, size_bytes: int) -> None:
    """Log number of parameters and size of the teacher network."""
    tracked.metrics({"teacher_total_params": parameters, "teacher_size_mb": size_bytes / MB})


def track_distillation(tracked: Tracked, result: StageResult, labels: tuple[str, ...]) -> None:
    """Log test metrics and size of the student, and its agreement with the teacher."""
    details = result.details
    track_teacher(tracked, details["teacher_parameters"], details["teacher_size_bytes"])
    tracked.metrics(_named("kd", result, labels) | {"kd_agreement": details["versus_teacher"]["agreement"]})
    tracked.metrics(
        {
            "student_total_params": result.parameters,
            "student_size_mb": result.size_bytes / MB,
            "compression_ratio": details["teacher_parameters"] / result.parameters,
            "size_ratio": details["teacher_size_bytes"] / result.size_bytes,
        }
    )


def track_pruning(tracked: Tracked, result: StageResult, labels: tuple[str, ...]) -> None:
    """Log test metrics, sparsity and size of the pruned network."""
    tracked.metrics(_named("pruning", result, labels))
    tracked.metrics(
        {
            "pruning_sparsity": result.details["sparsity"],
            "pruning_parameters": result.parameters,
            "pruning_size_mb": result.size_bytes / MB,
        }
    )


def track_export(
    tracked: Tracked, result: StageResult, labels: tuple[str, ...], package: Path, register: str | None
) -> None:
    """Log test metrics and size of the exported model, and the package as a model.

    register: name of the registered model that gets a new version.
    """
    child = tracked.child(f"export {result.details['target']}")
    child.metrics(result.metrics)
    child.finish()
    if result.stage == "quantization":
        tracked.metrics(_named("quantization", result, labels) | {"quantization_size_mb": result.size_bytes / MB})
    gate = result.details["gate"]
    selected = gate["trials"][gate["ships"]]
    names = ("drop", "agreement", "mean_logit_shift", "share_flipped", "times_faster")
    tracked.metrics({f"gate_{name}": selected[name] for name in names})
    cascade = result.details.get("cascade")
    if cascade is not None:
        tracked.metrics({"cascade_share": cascade["test"]["share"], "cascade_mean_ms": cascade["test"]["mean_ms"]})
    calibration = result.details.get("calibration")
    if calibration is not None:
        tracked.metrics({"calibration_error": calibration["package"]["ece"]})
        tracked.artifact(package / DIAGRAM_FILE, "model_card")
    tracked.metrics({"package_size_mb": result.details["package_size_bytes"] / MB})
    tracked.model(package, register)
    tracked.artifact(package / "README.md", "model_card")


def _named(prefix: str, result: StageResult, labels: tuple[str, ...]) -> dict[str, float]:
    names = ["accuracy", "macro_f1", *(f"f1_{key}" for key in label_keys(labels)), "roc_auc", "best_threshold"]
    return {f"{prefix}_{name}": result.metrics[name] for name in names if name in result.metrics}

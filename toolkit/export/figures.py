"""The figures of a package for its manifest: everything that the model card shows, and what it leaves out."""

from typing import Any

from toolkit.stages.result import StageResult
from toolkit.utils.files import without_nan

KEPT = (
    "standing",
    "versus",
    "invariance",
    "forgotten",
    "calibration",
    "abstention",
    "robustness",
    "functional_tests",
    "p50_ms",
    "truncation",
    "trimming",
    "cascade",
)
"""Details of the stage that the manifest has, too; the gate is in the run folder and on the card."""


def figures_of(result: StageResult) -> dict[str, Any]:
    """Return the entry `evaluation` of the manifest. Rows are numbers of the data file, counted from 0; no texts."""
    found = {
        "metrics": result.metrics,
        "validation_metrics": result.validation_metrics,
        "decision_rule": result.rule.as_dict(),
        "slices": result.slices,
        "parameters": result.parameters,
        "artifact_size_bytes": result.size_bytes,
    }
    return dict(without_nan(found | {name: result.details[name] for name in KEPT if name in result.details}))

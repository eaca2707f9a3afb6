"""The figures of a package for its manifest: everything that the model card shows, and what it leaves out."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from toolkit.data.corpus import Corpus, describe_split
from toolkit.stages.result import StageResult
from toolkit.stages.results_table import Row
from toolkit.utils.files import without_nan

KEPT = (
    *("standing", "versus", "forgotten", "calibration", "abstention", "scope", "drift", "robustness"),
    *("functional_tests", "gate", "invariance", "p50_ms", "truncation", "trimming", "cascade", "fp32_logit_gap"),
    "description",
)
"""Details of the stage that the manifest has, too."""
ROW_NUMBERS = ("folds", "validation", "test", "settings")
"""What the manifest leaves out of the description of the split: the run has it."""


def figures_of(result: StageResult, rows: Sequence[Row], corpus: Corpus) -> dict[str, Any]:
    """Return the entry `evaluation` of the manifest. It has row numbers of the data file, and no texts.

    rows: the results table of the card.
    """
    found = {
        "metrics": result.metrics,
        "validation_metrics": result.validation_metrics,
        "decision_rule": result.rule.as_dict(),
        "slices": result.slices,
        "parameters": result.parameters,
        "artifact_size_bytes": result.size_bytes,
        "results": [{key: value for key, value in asdict(row).items() if key != "standing"} for row in rows],
        "data": {key: value for key, value in describe_split(corpus).items() if key not in ROW_NUMBERS},
    }
    return dict(without_nan(found | {name: result.details[name] for name in KEPT if name in result.details}))

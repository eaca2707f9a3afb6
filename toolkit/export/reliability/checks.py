"""What a package is asked beyond its metrics: scope, drift and, as the export settings say, abstention, robustness,
functional tests and the description of its labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters.loaders.compose import NGRAM, model_type
from exporters.registry import LoadedArtifact
from toolkit.config.settings import ExportSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.predictor import Predictor, rule_of
from toolkit.evaluation.reliability.scope import Scope
from toolkit.evaluation.reliability.scope_file import scope_facts, scope_of, write_scope
from toolkit.export.reliability.abstaining import abstention_facts, add_abstention
from toolkit.export.reliability.described import described
from toolkit.export.reliability.drift_facts import drift_facts
from toolkit.export.reliability.robustness import ROWS_FAST, ROWS_SLOW, Label, functional_facts, robustness_facts
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.utils.console import working

PACKAGE = "this package"


def checks_of(
    corpus: Corpus,
    package: Contender,
    model: LoadedArtifact,
    linear: Predictor | None,
    export: ExportSettings,
    folder: Path,
) -> dict[str, Any]:
    """Return the facts of all checks. The abstention goes into config.json of `folder`, the scope into a file there.

    model: the package, loaded. linear: the linear baseline, to show beside it.
    Raises: InputError if the wanted risk cannot be kept, or the functional tests or the description cannot be read.
    """
    found: dict[str, Any] = {}
    if export.describe is not None:
        found["description"] = described(export.describe, corpus.label_names)
    label = _labeling(model, package.rule)
    if export.functional_tests is not None:
        found["functional_tests"] = functional_facts(export.functional_tests, corpus.label_names, label)
    abstention = add_abstention(corpus, package, export, folder)
    if abstention is not None:
        found["abstention"] = abstention_facts(corpus, package, abstention)
    with working("scope: reading the training texts"):
        known = scope_of(corpus)
        scope = Scope(known)
        write_scope(known, folder)
        found["scope"] = scope_facts(corpus, scope, known)
        found["drift"] = drift_facts(corpus, package, scope, None if abstention is None else abstention.threshold)
    if not export.no_robustness:
        models = {PACKAGE: label} | (
            {} if linear is None else {LINEAR_BASELINE_NAME: _labeling(linear, rule_of(linear))}
        )
        rows = ROWS_FAST if model_type(folder) == NGRAM else ROWS_SLOW
        found["robustness"] = robustness_facts(corpus, models, rows)
    return found


def _labeling(model: Predictor, rule: DecisionRule) -> Label:
    """Return a function from texts to predicted labels."""

    def label(texts: Sequence[str]) -> np.ndarray:
        return rule.predict(np.asarray(model.predict_proba(texts), dtype=np.float64))

    return label

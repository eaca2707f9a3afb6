"""The reference of a package for `hbt drift`: summaries of its validation rows."""

from typing import Any

import numpy as np

from toolkit.data.corpus import Corpus
from toolkit.evaluation.comparison import Contender
from toolkit.evaluation.metrics import softmax
from toolkit.evaluation.reliability.drift import reference_of, values_of
from toolkit.evaluation.reliability.scope import Scope


def drift_facts(corpus: Corpus, package: Contender, scope: Scope, below: float | None) -> dict[str, Any]:
    """Return the reference. below: of a package that abstains, the probability below which it is unsure."""
    rows = corpus.rows("validation")
    probabilities = softmax(package.predictions.of(rows).astype(np.float64))
    predicted = package.rule.predict(probabilities)
    values = values_of(corpus.take(rows), probabilities, predicted, corpus.label_names, scope, below)
    return reference_of(values, corpus.labels[rows], predicted, len(corpus.label_names))

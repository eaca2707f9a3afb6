"""What training costs on this machine: a short timed trial on the rows of the user, before anything is written."""

import time
from dataclasses import dataclass, replace

import numpy as np

from toolkit.config.settings import ModelSettings, TrainingSettings
from toolkit.data.corpus import Corpus
from toolkit.data.splits import LEFT_OUT
from toolkit.modeling.architecture import encoder_layers
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.students import build_student
from toolkit.training.dataset import Examples
from toolkit.training.linear_fit import STEPS, try_setting
from toolkit.training.trainer import Loop, fit
from toolkit.utils.console import working
from toolkit.utils.scratch import scratch_folder

TIMED_STEPS = 6
"""Training steps of a trial, of which the first is not timed."""
LINEAR_ROWS = 600
"""Most training rows on which one setting of the linear baseline is timed."""


@dataclass(frozen=True)
class Costs:
    """Seconds on this machine."""

    linear_s: float
    """Of the linear baseline, with its search."""
    train_s: float = 0.0
    """Per text and epoch of the teacher."""
    predict_s: float = 0.0
    """Per text that the teacher labels."""
    layer_s: float = 0.0
    """Of `train_s`, the part of one layer."""
    layers: int = 0
    """Layers of the teacher."""

    def student_s(self, layers: int) -> float:
        """Return the seconds per text and epoch of a student with so many layers of the teacher."""
        return self.train_s - (self.layers - layers) * self.layer_s


def linear_costs(corpus: Corpus) -> Costs:
    """Time one setting of the linear baseline on some of the training rows; return the cost of all on all rows."""
    with working("timing the linear baseline"):
        try_setting(_some_rows(corpus, 0))  # imports what it needs
        some = _some_rows(corpus, LINEAR_ROWS)
        started = time.monotonic()
        try_setting(some)
    settings, share = 1 + sum(map(len, STEPS)), len(corpus.rows("train")) / len(some.rows("train"))
    return Costs((time.monotonic() - started) * settings * share)


def _some_rows(corpus: Corpus, count: int) -> Corpus:
    """Return the corpus with about `count` training rows: the first of each label in each fold, two at least."""
    rows = corpus.rows("train")
    cells = corpus.fold[rows] * len(corpus.label_names) + corpus.labels[rows]
    share = min(1.0, count / len(rows))
    chosen = [mine[: max(2, round(share * len(mine)))] for mine in (rows[cells == cell] for cell in np.unique(cells))]
    fold = corpus.fold.copy()
    fold[np.setdiff1d(rows, np.concatenate(chosen))] = LEFT_OUT
    return replace(corpus, fold=fold)


def with_encoder(costs: Costs, corpus: Corpus, model: ModelSettings, training: TrainingSettings) -> Costs:
    """Return `costs` with those of an encoder, whose first training steps are timed.

    Raises: InputError if the encoder cannot be loaded.
    """
    rows, seed = corpus.rows("train"), corpus.settings.seed
    teacher = build_classifier(model, corpus.label_names, corpus.take(rows), seed)
    some = np.random.default_rng(seed).permutation(rows)[: TIMED_STEPS * training.batch_size]
    examples = Examples(corpus.take(some), corpus.labels[some])
    layers = len(encoder_layers(teacher.network.encoder))
    with working("timing the first training steps"):
        smallest = build_student("layers:1", teacher, model, [], seed)
        train_s = _seconds_per_text(teacher, examples, training, seed)
        layer_s = 0.0
        if layers > 1:
            layer_s = max(0.0, train_s - _seconds_per_text(smallest, examples, training, seed)) / (layers - 1)
        started = time.monotonic()
        teacher.predict_logits(examples.texts)
    predict_s = (time.monotonic() - started) / len(some)
    return replace(costs, train_s=train_s, predict_s=predict_s, layer_s=layer_s, layers=layers)


def _seconds_per_text(classifier: Classifier, examples: Examples, training: TrainingSettings, seed: int) -> float:
    times: list[float] = []
    with scratch_folder() as work:
        fit(
            classifier,
            examples,
            examples.take(np.arange(min(4, len(examples.texts)))),
            replace(training, epochs=1, learning_rate=1e-5),
            seed,
            work,
            loop=Loop(after_step=lambda step: times.append(time.monotonic())),
        )
    timed = times[1:] if len(times) > 2 else times  # the first step also sets up the processor's kernels
    texts = max(1, len(timed) - 1) * min(training.batch_size, len(examples.texts))
    return (timed[-1] - timed[0]) / texts

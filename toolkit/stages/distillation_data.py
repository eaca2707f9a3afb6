"""Distillation data: training rows with labels and teacher logits, and optional texts with teacher logits only.

Optional texts come from a file (`--unlabelled`) or are variants of the training texts (`--augment`).
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.config.recipe import Recipe
from toolkit.config.settings import DistillationSettings, TrainingSettings
from toolkit.data.augmentation import variants
from toolkit.data.corpus import Corpus, duplicate_key
from toolkit.data.normalization import normalize
from toolkit.data.unlabeled import read_unlabeled, unknown_texts
from toolkit.stages.run_folder import CACHE
from toolkit.stages.teacher_logits import NO_FOLD
from toolkit.stages.teachers import Teacher, find_teacher, logits_of_texts
from toolkit.training.dataset import Examples
from toolkit.training.feature_distillation import DistillationLoss
from toolkit.training.linear_fit import LinearSettings
from toolkit.training.losses import UNLABELED


@dataclass(frozen=True, eq=False)
class DistillationData:
    """Training data, teacher and settings for distillation, recovery after pruning or quantization-aware training."""

    teacher: Teacher
    corpus: Corpus
    recipe: Recipe
    train: Examples
    """Training rows first, then the additional texts, which have teacher logits but no label."""
    validation: Examples
    counts: dict[str, int | str]
    """Number of additional texts of each kind, number of texts left out, and hash of the unlabeled texts."""
    cache: Path
    """Folder of cached teacher logits and measured costs."""
    folds: np.ndarray
    """int (texts of `train`,): the fold that a text belongs to or was derived from; NO_FOLD for none."""
    found_rate: float | None = None
    """Learning rate that an earlier stage of the run has found for this network or its teacher."""

    @property
    def training(self) -> TrainingSettings:
        """Training settings of the student; its learning rate may be "auto"."""
        return self.recipe.student_training()

    @property
    def further_training(self) -> TrainingSettings:
        """Settings for training a network further, at the learning rate at which it was trained if that is known."""
        training, default = self.training, TrainingSettings.learning_rate
        of_teacher = self.recipe.training.learning_rate
        rates = (training.learning_rate, self.found_rate, of_teacher, default)
        return replace(training, learning_rate=next(rate for rate in rates if rate not in ("auto", None)))

    @property
    def distillation_loss(self) -> DistillationLoss:
        """Logit distillation loss with the weight and temperature of the recipe."""
        return DistillationLoss(self.recipe.distillation.kd_alpha, self.recipe.distillation.kd_temperature)

    def calibration(self) -> Examples:
        """Return `calib_samples` of the labeled training rows, drawn with the seed of the corpus."""
        labeled = len(self.corpus.rows("train"))
        order = np.random.default_rng(self.corpus.settings.seed).permutation(labeled)
        return self.train.take(np.sort(order[: self.recipe.pruning.calib_samples]))


def prepare_distillation(
    recipe: Recipe,
    corpus: Corpus,
    baseline: Path | None,
    cache: Path = CACHE,
    linear: LinearSettings | None = None,
) -> DistillationData:
    """Load the teacher of a recipe and return the distillation data with its logits.

    baseline: the finished baseline stage, which is the teacher if the recipe names none.
    cache: folder of cached teacher logits.
    linear: settings of the linear baseline, if they are known.
    Raises: InputError if a teacher cannot be loaded or the file of unlabeled texts cannot be read.
    """
    return distillation_data(find_teacher(recipe.distillation, corpus, baseline, cache, linear), corpus, recipe, cache)


def distillation_data(teacher: Teacher, corpus: Corpus, recipe: Recipe, cache: Path = CACHE) -> DistillationData:
    """Return the distillation data of a corpus: texts, labels and the logits of `teacher`.

    Raises: InputError if the file of unlabeled texts cannot be read.
    """
    train, validation = (_of_rows(teacher, corpus, corpus.rows(split)) for split in ("train", "validation"))
    own_folds = corpus.fold[corpus.rows("train")]
    texts, folds, counts = additional_texts(corpus, recipe.distillation)
    if texts:
        assert train.teacher_logits is not None
        logits = np.concatenate([train.teacher_logits, logits_of_texts(teacher, corpus, texts, folds, cache)])
        labels = np.concatenate([train.labels, np.full(len(texts), UNLABELED)])
        train = Examples([*train.texts, *texts], labels, logits)
    return DistillationData(
        teacher, corpus, recipe, train, validation, counts, cache, np.concatenate([own_folds, folds])
    )


def _of_rows(teacher: Teacher, corpus: Corpus, rows: np.ndarray) -> Examples:
    logits = teacher.predictions.of(rows) if not teacher.labels_alone else None
    return Examples(corpus.take(rows), corpus.labels[rows], logits)


def additional_texts(
    corpus: Corpus, settings: DistillationSettings
) -> tuple[list[str], np.ndarray, dict[str, int | str]]:
    """Return the texts without labels, the fold each was derived from (NO_FOLD for none), and their counts.

    Raises: InputError if the file of unlabeled texts cannot be read.
    """
    texts: list[str] = []
    folds: list[np.ndarray] = []
    counts: dict[str, int | str] = {}
    if settings.augment:
        made, source_folds = _variants(corpus)
        texts += made
        folds.append(source_folds)
        counts["augmented_texts"] = len(made)
    if settings.unlabelled is not None:
        found = read_unlabeled(Path(settings.unlabelled))
        new = unknown_texts(found, corpus)
        texts += new
        folds.append(np.full(len(new), NO_FOLD))
        counts |= {"unlabelled_texts": len(new), "unlabelled_left_out": len(found) - len(new)}
        counts["unlabelled_sha256"] = hashlib.sha256("\x00".join(found).encode()).hexdigest()
    return texts, np.concatenate(folds) if folds else np.zeros(0, dtype=np.int64), counts


def _variants(corpus: Corpus) -> tuple[list[str], np.ndarray]:
    """Return a variant of each training text and its fold, without duplicates of validation and test rows."""
    rows = corpus.rows("train")
    made = variants([normalize(text) for text in corpus.take(rows)], corpus.fold[rows], corpus.settings.seed)
    held_out = {corpus.keys[row] for split in ("validation", "test") for row in corpus.rows(split)}
    kept = [i for i, text in enumerate(made) if duplicate_key(text) not in held_out]
    return [made[i] for i in kept], corpus.fold[rows[kept]]

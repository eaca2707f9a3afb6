"""What a student is taught with: the training rows and, if asked, further texts that only the teacher labels."""

import hashlib
from dataclasses import dataclass
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
from toolkit.training.losses import UNLABELED


@dataclass(frozen=True, eq=False)
class DistillationData:
    """What a student, or a network that recovers its accuracy, is trained with."""

    teacher: Teacher
    corpus: Corpus
    recipe: Recipe
    train: Examples
    """Training rows first, then the further texts, which have teacher logits and no label."""
    validation: Examples
    counts: dict[str, int | str]
    """Number of further texts of each kind, how many were left out, and the hash of their file."""
    cache: Path
    """Folder of teacher logits and measured costs."""

    @property
    def training(self) -> TrainingSettings:
        """The training settings of the student."""
        return self.recipe.student_training()

    @property
    def distillation_loss(self) -> DistillationLoss:
        """Logit distillation at the weight and temperature of the recipe."""
        return DistillationLoss(self.recipe.distillation.kd_alpha, self.recipe.distillation.kd_temperature)

    def calibration(self) -> Examples:
        """Return some of the training rows, the same for the same seed."""
        labeled = len(self.corpus.rows("train"))
        order = np.random.default_rng(self.corpus.settings.seed).permutation(labeled)
        return self.train.take(np.sort(order[: self.recipe.pruning.calib_samples]))


def prepare_distillation(
    recipe: Recipe, corpus: Corpus, baseline: Path | None, cache: Path = CACHE
) -> DistillationData:
    """Find the teacher of a recipe and compute its logits for every text that a student learns from.

    baseline: the finished stage that teaches where the recipe names no teacher.
    cache: folder of the logits that were computed before.
    Raises: InputError if a teacher does not load or the file of unlabeled texts cannot be read.
    """
    return distillation_data(find_teacher(recipe.distillation, corpus, baseline, cache), corpus, recipe, cache)


def distillation_data(teacher: Teacher, corpus: Corpus, recipe: Recipe, cache: Path = CACHE) -> DistillationData:
    """Return texts, labels and the logits of `teacher` for its student.

    Raises: InputError if the file of unlabeled texts cannot be read.
    """
    train, validation = (_of_rows(teacher, corpus, corpus.rows(split)) for split in ("train", "validation"))
    texts, folds, counts = further_texts(corpus, recipe.distillation)
    if texts:
        assert train.teacher_logits is not None
        logits = np.concatenate([train.teacher_logits, logits_of_texts(teacher, corpus, texts, folds, cache)])
        labels = np.concatenate([train.labels, np.full(len(texts), UNLABELED)])
        train = Examples([*train.texts, *texts], labels, logits)
    return DistillationData(teacher, corpus, recipe, train, validation, counts, cache)


def _of_rows(teacher: Teacher, corpus: Corpus, rows: np.ndarray) -> Examples:
    return Examples(corpus.take(rows), corpus.labels[rows], teacher.predictions.of(rows))


def further_texts(corpus: Corpus, how: DistillationSettings) -> tuple[list[str], np.ndarray, dict[str, int | str]]:
    """The texts that only the teacher labels, the fold that each was made from (NO_FOLD for none), and their counts.

    Raises: InputError if the file of unlabeled texts cannot be read.
    """
    texts: list[str] = []
    folds: list[np.ndarray] = []
    told: dict[str, int | str] = {}
    if how.augment:
        made, made_of = _variants(corpus)
        texts += made
        folds.append(made_of)
        told["augmented_texts"] = len(made)
    if how.unlabelled is not None:
        found = read_unlabeled(Path(how.unlabelled))
        new = unknown_texts(found, corpus)
        texts += new
        folds.append(np.full(len(new), NO_FOLD))
        told |= {"unlabelled_texts": len(new), "unlabelled_left_out": len(found) - len(new)}
        told["unlabelled_sha256"] = hashlib.sha256("\x00".join(found).encode()).hexdigest()
    return texts, np.concatenate(folds) if folds else np.zeros(0, dtype=np.int64), told


def _variants(corpus: Corpus) -> tuple[list[str], np.ndarray]:
    """A variant of each training text and its fold, without those that came out like a validation or test row."""
    rows = corpus.rows("train")
    made = variants([normalize(text) for text in corpus.take(rows)], corpus.fold[rows], corpus.settings.seed)
    held_out = {corpus.keys[row] for split in ("validation", "test") for row in corpus.rows(split)}
    kept = [i for i, text in enumerate(made) if duplicate_key(text) not in held_out]
    return [made[i] for i in kept], corpus.fold[rows[kept]]

"""The teacher of a student, and its logits on any text.

A teacher is the mean of its members (fold ensembles, best folds, checkpoints), with the linear baseline's logits
blended in if asked. A training row, and every text made from one, gets the logits of classifiers that did not learn
from that row, where there are such. Every text goes through a network once; its logits are cached.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.config.settings import DistillationSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.metrics import cross_entropy, softmax
from toolkit.evaluation.predictions import Predictions, best_threshold
from toolkit.modeling.classifier import Classifier, load_classifier, load_sequence_classifier
from toolkit.stages.cross_validation import combine_folds, fold_predictions
from toolkit.stages.linear_baseline import LinearFolds, linear_folds
from toolkit.stages.result import StageResult
from toolkit.stages.run_folder import BASELINE, CACHE, Place, checkpoint_of, locate
from toolkit.stages.teacher_logits import NO_FOLD, blend, cached_logits
from toolkit.utils import console
from toolkit.utils.errors import InputError

ENSEMBLE, TEACHER = "fold ensemble", "teacher"
"""What taught a student: the baseline's folds as they stand in their own row, or anything else."""


TEACHER_FILE = "teacher.csv"
"""The predictions of a student's teacher, in the folder of the student."""


SHARES = tuple(round(0.1 * i, 1) for i in range(10))
"""What share of the linear baseline is tried in a blend."""


@dataclass(frozen=True, eq=False)
class Member:
    """One voice of a teacher."""

    checkpoints: tuple[Path, ...]
    """The folds of a baseline, in order, or one checkpoint."""
    network: Path
    """One of these: of folds the best."""
    predictions: Predictions
    """Logits on all rows; see `Teacher`."""
    threshold: float | None
    source: str

    @property
    def unseen(self) -> bool:
        """Whether training rows are labeled by classifiers that did not learn from them."""
        return len(self.checkpoints) > 1


@dataclass(frozen=True, eq=False)
class Teacher:
    """What a student learns from."""

    checkpoint: Path
    """The one network whose layers, tokenizer and size count."""
    predictions: Predictions
    """Logits on all rows; on training rows from classifiers that did not learn from them, where there are such."""
    threshold: float | None
    source: str
    """In words, for the card."""
    name: str
    """`comparisons.ENSEMBLE` for the folds of the run's own baseline, as they are; else `comparisons.TEACHER`."""
    members: tuple[Member, ...]
    linear: LinearFolds | None = None
    """The linear baseline that is blended in."""
    floor_share: float = 0.0


def find_teacher(how: DistillationSettings, corpus: Corpus, baseline: Path | None, cache: Path = CACHE) -> Teacher:
    """Return the teacher that `how` names; without --teacher the finished stage `baseline`.

    cache: folder of the logits that were computed before.
    Raises: InputError if a model does not load or its labels are not those of the corpus.
    """
    if how.teacher:
        members = tuple(_member(given, how.teacher_folds, corpus, cache) for given in how.teacher)
    else:
        assert baseline is not None, "a run without --teacher has a baseline"
        members = (_folds(baseline, how.teacher_folds, corpus),)
    predictions = _mean([member.predictions for member in members])
    threshold = members[0].threshold if len(members) == 1 else None
    teacher = Teacher(
        checkpoint=members[0].network,
        predictions=predictions,
        threshold=threshold or best_threshold(corpus, predictions, _held_out(corpus, members)),
        source=" and ".join(member.source for member in members),
        name=TEACHER if how.teacher or how.teacher_folds == "best" else ENSEMBLE,
        members=members,
    )
    return _blended(corpus, teacher) if how.blend_floor else teacher


def load_teacher(given: str, corpus: Corpus) -> Classifier:
    """The classifier in a folder or of a hub id.

    Raises: InputError if it does not load or its labels are not those of the corpus.
    """
    folder = Path(given)
    option = "--teacher"
    found = load_classifier(folder, None, option) if folder.is_dir() else load_sequence_classifier(given, option=option)
    return with_corpus_labels(found, corpus, f"--teacher {given}")


def with_corpus_labels(classifier: Classifier, corpus: Corpus, model: str) -> Classifier:
    """`classifier` under the label names of the corpus, where its own are the same or say nothing.

    Raises: InputError if they differ.
    """
    mine, theirs = corpus.label_names, classifier.labels
    nameless = all(name == f"LABEL_{i}" for i, name in enumerate(theirs))
    if len(mine) != len(theirs) or (mine != theirs and not nameless):
        raise InputError(
            f"{model}: its labels are {', '.join(theirs)} and those of the data {', '.join(mine)}; "
            "name them in the model's order with --label-names"
        )
    return replace(classifier, labels=mine)


def logits_of_texts(
    teacher: Teacher, corpus: Corpus, texts: Sequence[str], folds: np.ndarray, cache: Path
) -> np.ndarray:
    """What `teacher` says of texts beyond the corpus: float32 (texts, labels).

    folds: int (texts,), the training fold that a text was made from, NO_FOLD for none. A fold ensemble labels it
    with the classifier of that fold, which never saw it, and texts of no fold with the mean of all.
    """
    logits = np.mean([_member_logits(m, corpus, texts, folds, cache) for m in teacher.members], axis=0)
    if teacher.linear is not None:
        with console.working("linear baseline: labeling"):
            linear = teacher.linear.logits(texts, folds)
        logits = blend(logits, linear, teacher.floor_share)
    return logits.astype(np.float32)


def _member(given: str, folds: str, corpus: Corpus, cache: Path) -> Member:
    """The member that a run, a baseline stage or a checkpoint is; `given`: as typed with --teacher."""
    place = locate(Path(given))
    if place is not None and place.run.fingerprint not in (None, corpus.fingerprint):
        console.say(f"--teacher {given}: trained on another split; it may have learned from test rows of this one")
    elif place is not None and place.run.fingerprint is not None and _has_folds(place):
        return _folds(place.run.folder / BASELINE, folds, corpus)
    return _lone(checkpoint_of(Path(given)), corpus, cache)


def _has_folds(place: Place) -> bool:
    return place.stage in (None, BASELINE) and BASELINE in place.run.results


def _folds(stage: Path, folds: str, corpus: Corpus) -> Member:
    """The member that a finished baseline is: all of its folds, or the best one alone."""
    result = StageResult.load(stage)
    best = stage / result.checkpoint
    if folds == "best":
        predictions = fold_predictions(stage, result.details["best_fold"])
        source = "best fold, which learned from most training rows"
        return Member((best,), best, predictions, result.details["best_fold_threshold"], source)
    predictions = combine_folds(corpus, [fold_predictions(stage, k) for k in range(corpus.folds)])
    checkpoints = tuple(stage / f"fold-{k + 1}" for k in range(corpus.folds))
    return Member(checkpoints, best, predictions, result.threshold, "fold ensemble, out-of-fold on training rows")


def _lone(checkpoint: Path, corpus: Corpus, cache: Path) -> Member:
    classifier = load_teacher(checkpoint.as_posix(), corpus)
    rows = corpus.rows("all")
    said = Predictions(rows, cached_logits(classifier, corpus.take(rows), cache, "teacher"))
    source = "one checkpoint, which may have learned from any of these rows"
    return Member((checkpoint,), checkpoint, said, classifier.threshold, source)


def _mean(said: list[Predictions]) -> Predictions:
    rows = said[0].rows
    return Predictions(rows, np.mean([each.of(rows) for each in said], axis=0).astype(np.float32))


def _held_out(corpus: Corpus, members: Sequence[Member]) -> np.ndarray:
    """The rows on which the teacher's choices are made: those that none of the answering networks learned from."""
    if all(member.unseen for member in members):
        return np.concatenate([corpus.rows("train"), corpus.rows("validation")])
    return corpus.rows("validation")


def _blended(corpus: Corpus, teacher: Teacher) -> Teacher:
    """`teacher` with the linear baseline blended in.

    The share is that with the least cross-entropy on rows that neither learned from.
    """
    with console.working("linear baseline: fitting each fold"):
        folds = linear_folds(corpus)
        rows = teacher.predictions.rows
        linear = Predictions(rows, folds.logits(corpus.take(rows), np.maximum(corpus.fold[rows], NO_FOLD)))
    chosen_on = _held_out(corpus, teacher.members)
    labels, ours, theirs = corpus.labels[chosen_on], teacher.predictions.of(chosen_on), linear.of(chosen_on)
    share = min(SHARES, key=lambda s: cross_entropy(labels, softmax(blend(ours, theirs, s).astype(np.float64))))
    predictions = Predictions(rows, blend(teacher.predictions.logits, linear.logits, share).astype(np.float32))
    return replace(
        teacher,
        predictions=predictions,
        threshold=best_threshold(corpus, predictions, chosen_on),
        source=f"{teacher.source}, {100 * share:.0f} % linear baseline blended in",
        name=TEACHER,
        linear=folds,
        floor_share=share,
    )


def _member_logits(member: Member, corpus: Corpus, texts: Sequence[str], folds: np.ndarray, cache: Path) -> np.ndarray:
    logits = np.zeros((len(texts), len(corpus.label_names)), dtype=np.float32)
    everything = np.arange(len(texts))
    for fold, checkpoint in enumerate(member.checkpoints):
        what = f"teacher, fold {fold + 1}: labeling" if member.unseen else "teacher: labeling"
        classifier = load_teacher(checkpoint.as_posix(), corpus)
        # Apart, so that the texts of no fold are found in the cache whatever else is asked beside them.
        parts = [(1.0, folds == fold), (1 / len(member.checkpoints), folds == NO_FOLD)]
        for share, asked in parts if member.unseen else [(1.0, everything >= 0)]:
            if asked.any():
                chosen = [texts[i] for i in everything[asked]]
                logits[asked] += share * cached_logits(classifier, chosen, cache, what, exact=False)
    return logits

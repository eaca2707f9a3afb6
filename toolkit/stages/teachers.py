"""The teacher of a student, and its logits on the corpus and on any other text.

The logits of a teacher are the mean over its members (fold ensembles, best folds, checkpoints), blended with those of
the linear baseline if `blend_floor` is set. With a fold ensemble, a training row and every text derived from it get the
logits of the classifier that was not trained on that row. Logits are computed once and cached.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.config.settings import DistillationSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule, rule_from
from toolkit.evaluation.label_order import better_order
from toolkit.evaluation.metrics import cross_entropy, macro_f1, softmax
from toolkit.evaluation.predictions import PREDICTIONS_FILE, Predictions, rule_on
from toolkit.modeling.classifier import Classifier, load_classifier, load_sequence_classifier
from toolkit.stages.cross_validation import combine_folds, fold_predictions
from toolkit.stages.linear_baseline import NAME as LINEAR_BASELINE_NAME
from toolkit.stages.result import StageResult
from toolkit.stages.run_folder import BASELINE, CACHE, Place, checkpoint_of, locate
from toolkit.stages.teacher_logits import NO_FOLD, blend, cached_logits
from toolkit.training.linear_fit import LinearFit, LinearSettings, fit_linear
from toolkit.utils import console
from toolkit.utils.errors import InputError

ENSEMBLE, TEACHER = "fold ensemble", "teacher"
"""Names of a teacher in tables: the unchanged fold ensemble of the run's own baseline, or any other teacher."""


TEACHER_FILE = "teacher.csv"
"""File with the logits of the teacher, in the folder of the distillation stage."""


SHARES = tuple(round(0.1 * i, 1) for i in range(10))
"""Candidate weights of the linear baseline in a blend."""


@dataclass(frozen=True, eq=False)
class Member:
    """One member of a teacher: a fold ensemble or one checkpoint."""

    checkpoints: tuple[Path, ...]
    """The fold checkpoints of a baseline, in order, or one checkpoint."""
    network: Path
    """The best of these checkpoints."""
    predictions: Predictions
    """Logits on all rows; see `Teacher`."""
    rule: DecisionRule | None
    """None for an imported model, for which none was chosen yet."""
    source: str

    @property
    def out_of_fold(self) -> bool:
        """Whether the logits of training rows come from classifiers that were not trained on them."""
        return len(self.checkpoints) > 1


@dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher and its logits on the corpus."""

    checkpoint: Path
    """The network that is used where one is needed: for its layers, tokenizer, features and size."""
    predictions: Predictions
    """Logits on all rows of the corpus; those of a fold ensemble are out of fold on training rows."""
    rule: DecisionRule
    source: str
    """Description for the model card."""
    name: str
    """ENSEMBLE for the unchanged fold ensemble of the run's own baseline, the name of the linear baseline without a
    teacher, else TEACHER."""
    members: tuple[Member, ...]
    linear: LinearFit | None = None
    """The linear baseline that is blended in, if any."""
    floor_share: float = 0.0
    """Weight of the linear baseline in the blend."""

    @property
    def labels_alone(self) -> bool:
        """Whether the linear baseline stands in for a teacher, and the student learns from the labels alone."""
        return self.name == LINEAR_BASELINE_NAME


def find_teacher(
    settings: DistillationSettings,
    corpus: Corpus,
    baseline: Path | None,
    cache: Path = CACHE,
    linear: LinearSettings | None = None,
) -> Teacher:
    """Return the teacher named in `settings`; without --teacher, the finished stage `baseline`.

    With `no_teacher`, `baseline` is the finished linear baseline, and the teacher has no members.

    cache: folder of cached teacher logits.
    linear: settings of the linear baseline of this corpus, if they are known; needed with `blend_floor` only.
    Raises: InputError if a model cannot be loaded or its labels are not those of the corpus.
    """
    if settings.no_teacher:
        return _labels_alone(baseline)
    if settings.teacher:
        members = tuple(_member(given, settings.teacher_folds, corpus, cache) for given in settings.teacher)
    else:
        assert baseline is not None, "a run without --teacher has a baseline"
        members = (_baseline_member(baseline, settings.teacher_folds, corpus),)
    predictions = _mean([member.predictions for member in members])
    teacher = Teacher(
        checkpoint=members[0].network,
        predictions=predictions,
        rule=_rule_of(corpus, members, predictions),
        source=" and ".join(member.source for member in members),
        name=TEACHER if settings.teacher or settings.teacher_folds == "best" else ENSEMBLE,
        members=members,
    )
    return _blended(corpus, teacher, linear) if settings.blend_floor else teacher


def _labels_alone(linear: Path | None) -> Teacher:
    """Return the linear baseline in the place of a teacher: the student is compared with it, not trained on it."""
    assert linear is not None, "a run with --no-teacher has a linear baseline"
    result, predictions = StageResult.load(linear), Predictions.load(linear / PREDICTIONS_FILE)
    return Teacher(linear, predictions, result.rule, "none: the labels alone", LINEAR_BASELINE_NAME, ())


def load_teacher(given: str, corpus: Corpus) -> Classifier:
    """Load the classifier in a folder or with a hub id.

    Raises: InputError if it cannot be loaded or its labels are not those of the corpus.
    """
    path, option = Path(given), "--teacher"
    found = load_classifier(path, None, option) if path.is_dir() else load_sequence_classifier(given, option=option)
    return with_corpus_labels(found, corpus, f"--teacher {given}")


def with_corpus_labels(classifier: Classifier, corpus: Corpus, model: str) -> Classifier:
    """Return `classifier` with the label names of the corpus, which must be its own, or name its outputs in order.

    Outputs without names (LABEL_0, LABEL_1, …) are taken to be the labels of the corpus in the order of --label-names
    or, if the file numbers its labels from 0, in that order.
    model: how the user named the classifier.
    Raises: InputError if number or names of the labels differ, or if their order is not known.
    """
    expected, labels = corpus.label_names, classifier.labels
    in_order = bool(corpus.settings.label_names) or all(value == str(i) for i, value in enumerate(corpus.values))
    if len(expected) == len(labels) and (expected == labels or (in_order and _without_names(labels))):
        return replace(classifier, labels=expected)
    by_case = {name.casefold(): name for name in expected}
    own = [by_case.get(name.casefold(), "") for name in labels]
    if tuple(own) == expected:  # they differ in case only
        return replace(classifier, labels=expected)
    if sorted(own) == sorted(expected):
        fix = f"give --label-names {','.join(own)}"
    elif len(labels) != len(expected):
        fix = "give data with the labels of the model, or another model"
    elif _without_names(labels):
        fix = f"give those of the data in the order of the model, such as --label-names {','.join(expected)}"
    else:
        fix = "rename those of the data or, if they are numbers, name them in the model's order with --label-names"
    raise InputError(
        f"{model}: its labels are {', '.join(labels)}, but those of the data are {', '.join(expected)}; {fix}"
    )


def _without_names(labels: Sequence[str]) -> bool:
    """Return whether the labels of a model are only numbers: LABEL_0, LABEL_1, … or 0, 1, …"""
    return all(name.casefold() in (f"label_{i}", str(i)) for i, name in enumerate(labels))


def refuse_other_order(classifier: Classifier, corpus: Corpus, predictions: Predictions, model: str) -> None:
    """Raise InputError if the outputs of a model fit the labels far better in another order.

    predictions: of `classifier`, on some validation rows at least.
    model: how the user named it.
    """
    rows = np.intersect1d(corpus.rows("validation"), predictions.rows)
    predicted = (classifier.rule or DecisionRule()).predict(softmax(predictions.of(rows)))
    truth, labels = corpus.labels[rows], len(corpus.label_names)
    order = better_order(truth, predicted, labels)
    if order is None:
        return
    before, after = macro_f1(truth, predicted, labels), macro_f1(truth, np.array(order)[predicted], labels)
    if _without_names(tuple(getattr(classifier.network.config, "id2label", {}).values())):
        fix = f"if that is its order, give --label-names {','.join(corpus.values[i] for i in order)}"
    else:
        fix = "correct the labels of the data, or id2label in the config.json of the model"
    raise InputError(
        f"{model}: its outputs, read as {', '.join(corpus.label_names)}, have macro-F1 {before:.4f} on {len(rows):,} "
        f"validation rows, and {after:.4f} read as {', '.join(corpus.label_names[i] for i in order)}; {fix}"
    )


def logits_of_texts(
    teacher: Teacher, corpus: Corpus, texts: Sequence[str], folds: np.ndarray, cache: Path
) -> np.ndarray:
    """Return the logits of `teacher` on texts outside the corpus, float32 (texts, labels).

    folds: int (texts,), the training fold that a text was derived from, NO_FOLD for none. In a fold ensemble, the
    logits of a text come from the classifier that was not trained on its fold; those of NO_FOLD are the mean over all.
    """
    logits = np.mean([_member_logits(m, corpus, texts, folds, cache) for m in teacher.members], axis=0)
    if teacher.linear is not None:
        with console.working("linear baseline: computing logits"):
            linear = teacher.linear.logits(texts, folds)
        logits = blend(logits, linear, teacher.floor_share)
    return logits.astype(np.float32)


def _member(given: str, folds: str, corpus: Corpus, cache: Path) -> Member:
    """Return the member for one value of --teacher: a run, a baseline stage or a checkpoint."""
    place = locate(Path(given))
    if place is not None and place.run.fingerprint not in (None, corpus.fingerprint):
        console.say(f"--teacher {given}: trained on another split, so possibly on test rows of this one")
    elif place is not None and place.run.fingerprint is not None and _has_folds(place):
        return _baseline_member(place.run.folder / BASELINE, folds, corpus)
    return _checkpoint_member(checkpoint_of(Path(given)), corpus, cache)


def _has_folds(place: Place) -> bool:
    return place.stage in (None, BASELINE) and BASELINE in place.run.results


def _baseline_member(stage: Path, folds: str, corpus: Corpus) -> Member:
    """Return the member for a finished baseline: the fold ensemble, or only the best fold."""
    result = StageResult.load(stage)
    best = stage / result.checkpoint
    if folds == "best":
        predictions = fold_predictions(stage, result.details["best_fold"])
        source = "best fold, which was trained on most training rows"
        return Member((best,), best, predictions, rule_from(result.details["best_fold_rule"]), source)
    predictions = combine_folds(corpus, [fold_predictions(stage, k) for k in range(corpus.folds)])
    checkpoints = tuple(stage / f"fold-{k + 1}" for k in range(corpus.folds))
    return Member(checkpoints, best, predictions, result.rule, "fold ensemble, out-of-fold on training rows")


def _checkpoint_member(checkpoint: Path, corpus: Corpus, cache: Path) -> Member:
    classifier = load_teacher(checkpoint.as_posix(), corpus)
    rows = corpus.rows("all")
    predictions = Predictions(rows, cached_logits(classifier, corpus.take(rows), cache, "teacher"))
    source = "one checkpoint, which may have been trained on any of these rows"
    return Member((checkpoint,), checkpoint, predictions, classifier.rule, source)


def _mean(predictions: list[Predictions]) -> Predictions:
    rows = predictions[0].rows
    return Predictions(rows, np.mean([each.of(rows) for each in predictions], axis=0).astype(np.float32))


def _rule_of(corpus: Corpus, members: Sequence[Member], predictions: Predictions) -> DecisionRule:
    """Return the rule of a single member, if it has one, else one chosen on rows held out from all members."""
    if len(members) == 1 and members[0].rule is not None:
        return members[0].rule
    return rule_on(corpus, predictions, _held_out(corpus, members)).rule


def _held_out(corpus: Corpus, members: Sequence[Member]) -> np.ndarray:
    """Return the rows for choosing rule and blend: those whose logits come from networks not trained on them."""
    if all(member.out_of_fold for member in members):
        return np.concatenate([corpus.rows("train"), corpus.rows("validation")])
    return corpus.rows("validation")


def _blended(corpus: Corpus, teacher: Teacher, settings: LinearSettings | None) -> Teacher:
    """Return `teacher` blended with the linear baseline.

    The weight of the baseline is the one with the lowest cross-entropy on rows that are held out from both.
    """
    folds = fit_linear(corpus, settings)
    rows = teacher.predictions.rows
    with console.working("linear baseline: computing logits"):
        linear = Predictions(rows, folds.logits(corpus.take(rows), np.maximum(corpus.fold[rows], NO_FOLD)))
    held_out = _held_out(corpus, teacher.members)
    labels, network, baseline = corpus.labels[held_out], teacher.predictions.of(held_out), linear.of(held_out)
    share = min(SHARES, key=lambda s: cross_entropy(labels, softmax(blend(network, baseline, s).astype(np.float64))))
    predictions = Predictions(rows, blend(teacher.predictions.logits, linear.logits, share).astype(np.float32))
    return replace(
        teacher,
        predictions=predictions,
        rule=rule_on(corpus, predictions, held_out).rule,
        source=f"{teacher.source}, {100 * share:.0f} % linear baseline blended in",
        name=TEACHER,
        linear=folds,
        floor_share=share,
    )


def _member_logits(member: Member, corpus: Corpus, texts: Sequence[str], folds: np.ndarray, cache: Path) -> np.ndarray:
    logits = np.zeros((len(texts), len(corpus.label_names)), dtype=np.float32)
    everything = np.arange(len(texts))
    for fold, checkpoint in enumerate(member.checkpoints):
        what = f"teacher, fold {fold + 1}: computing logits" if member.out_of_fold else "teacher: computing logits"
        classifier = load_teacher(checkpoint.as_posix(), corpus)
        # Two cache entries, so that the logits of NO_FOLD texts are reused with any other set of variants.
        parts = [(1.0, folds == fold), (1 / len(member.checkpoints), folds == NO_FOLD)]
        for share, selected in parts if member.out_of_fold else [(1.0, everything >= 0)]:
            if selected.any():
                chosen = [texts[i] for i in everything[selected]]
                logits[selected] += share * cached_logits(classifier, chosen, cache, what, exact=False)
    return logits

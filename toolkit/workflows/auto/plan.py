"""What `hbt auto` will run, decided by the time that a short trial predicts, and kept, so that the command resumes."""

import json
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from toolkit.config.cli_options import options_text
from toolkit.config.export_settings import NGRAM_TARGETS, ExportSettings
from toolkit.config.recipe import SEARCHED_STUDENTS, Recipe
from toolkit.config.settings import UNTRAINED, UNTRAINED_RATE, CorpusSettings, ModelSettings, TrainingSettings
from toolkit.config.toml_file import recipe_from
from toolkit.data.corpus import Corpus, corpus_from_table, read_source
from toolkit.data.unlabeled import read_unlabeled
from toolkit.stages.run_folder import RUNS
from toolkit.training.learning_rate import EPOCHS as TRIAL_EPOCHS, START as START_RATE, TEXTS as TRIAL_TEXTS
from toolkit.utils.errors import InputError
from toolkit.utils.files import read_json, write_text
from toolkit.workflows.auto.costs import Costs, linear_costs, with_encoder
from toolkit.workflows.auto.understanding import Understood

LABELS, TEACHER = "labels", "teacher"
"""Last parts of the names of the runs."""
POOLING: Literal["mean"] = "mean"
TEACHER_STEPS, STUDENT_STEPS = 900, 2000
"""Training steps that are wanted."""
TEACHER_EPOCHS, STUDENT_EPOCHS = (2, 12), (4, 20)
"""Fewest and most epochs."""
TRIALS = 4
"""Learning rates that a search usually tries."""
TEACHER_SHARE = 0.65
"""Most of the time left that the teacher may take; the students need the rest."""
TEACHERS = (
    *((1.0, 5, True), (1.0, 3, True), (0.6, 3, True), (1.0, 2, True)),
    *((0.6, 3, False), (0.6, 2, False), (0.35, 2, False)),
)
"""Share of the wanted epochs, folds, and whether the learning rate is searched: the first that fits is taken."""
STUDENTS = (
    SEARCHED_STUDENTS,
    ("ngram", "layers:1", "layers:2", "cascade"),
    ("ngram", "layers:2", "cascade"),
    ("ngram", "layers:1", "cascade"),
)
"""Students of a search: the first that fit in the time left; else the n-gram student alone."""
EXPORT_S = 20.0
"""Seconds for exporting and timing a package: processes that start, and timings with a limit of their own."""


@dataclass(frozen=True)
class Request:
    """What the user asked for; another request under the same name is another plan."""

    corpus: CorpusSettings
    model: str | None
    minutes: float
    name: str
    unlabelled: str | None = None
    target: str = ExportSettings.target


@dataclass(frozen=True)
class Plan:
    """What will be run."""

    request: Request
    folds: int
    model: str | None
    """The encoder of the teacher; None without a teacher."""
    epochs: int = 0
    learning_rate: float | None = None
    """None: found by short trials."""
    students: tuple[str, ...] = ()
    student_epochs: int = 0
    why: str = ""
    """Why there is no teacher."""
    costs: Costs = field(default_factory=lambda: Costs(0.0))
    seconds: dict[str, float] = field(default_factory=dict)
    """Expected time of each part."""
    students_decided: bool = False
    """Whether the students were chosen by the time left after the teacher's training."""

    @property
    def labels_alone(self) -> Recipe:
        """The recipe of the n-gram student that learns from the labels alone, the same for any number of minutes."""
        given = {"student": "ngram", "no_teacher": True, "pipeline": "baseline_kd_quant", "name": self._name(LABELS)}
        return recipe_from(None, asdict(self.request.corpus) | given | {"target": self.request.target})

    @property
    def teacher(self) -> Recipe:
        """The recipe of the teacher."""
        rate = {"learning_rate": self.learning_rate or "auto"}
        given = {"model": self.model, "pooling": POOLING, "epochs": self.epochs, "name": self._name(TEACHER)}
        return recipe_from(None, asdict(self.request.corpus) | {"folds": self.folds} | given | rate)

    @property
    def search(self) -> dict[str, Any]:
        """The settings of the student search, beside those of the teacher's run."""
        teacher = (RUNS / self._name(TEACHER)).as_posix()
        given: dict[str, Any] = {"teacher": (teacher,), "kd_epochs": self.student_epochs, "name": self.request.name}
        more = {"unlabelled": self.request.unlabelled, "target": self.request.target}
        return given | {key: value for key, value in more.items() if value not in (None, "", ExportSettings.target)}

    def _name(self, part: str) -> str:
        return f"{self.request.name}-{part}"

    def commands(self, budget_ms: float, budget_mb: float) -> list[str]:
        """Return the commands that do the same, for people."""
        found = [f"hbt run{_options(self.labels_alone)}"]
        if self.model is not None:
            found.append(f"hbt train{_options(self.teacher)}")
            search = self.search
            data = self.request.corpus.data
            more = "".join(
                f" --{key.replace('_', '-')} {_quoted(value[0] if isinstance(value, tuple) else value)}"
                for key, value in search.items()
            )
            students = _quoted(" ".join(self.students))
            budget = f" --budget-ms {budget_ms:g} --budget-mb {budget_mb:g}"
            found.append(f"hbt students {_quoted(data)} --students {students}{budget}{more}")
        return found


def make_plan(request: Request, understood: Understood, started: float) -> Plan:
    """Return the plan for a request, after a timed trial. Nothing is written.

    started: `time.monotonic()` when the command began.
    Raises: InputError if the encoder that the user has named cannot be loaded.
    """
    corpus = understood.corpus
    costs = linear_costs(corpus)
    most = corpus.folds
    alone = Plan(request, most, None, costs=costs, seconds={"labels alone": 1.5 * costs.linear_s + EXPORT_S})
    left = 60 * request.minutes - (time.monotonic() - started) - alone.seconds["labels alone"]
    if left < 2 * EXPORT_S and request.model is None:  # do not wait for a hub
        return replace(alone, why=_no_time(request))
    model = request.model or understood.encoder.model
    settings = ModelSettings(model=model, pooling=POOLING)
    try:
        costs = with_encoder(costs, corpus, settings, TrainingSettings())
    except InputError as error:
        if request.model is not None:
            raise
        return replace(alone, why=str(error))
    left = 60 * request.minutes - (time.monotonic() - started) - alone.seconds["labels alone"]
    search_s = 1.5 * costs.linear_s + EXPORT_S + _unlabeled_s(request, costs)
    rows = len(corpus.rows("train"))
    for share, folds, searches in TEACHERS:
        if folds > most:
            continue
        epochs = _epochs(rows * (folds - 1) / folds, TEACHER_STEPS, TEACHER_EPOCHS, share)
        seconds = teacher_seconds(costs, corpus, folds, epochs, searches)
        if seconds <= TEACHER_SHARE * (left - search_s):
            fixed = UNTRAINED_RATE if model.startswith(UNTRAINED) else START_RATE
            rate = None if searches else fixed
            plan = replace(alone, folds=folds, model=model, epochs=epochs, learning_rate=rate, costs=costs)
            plan = replace(plan, seconds=alone.seconds | {"teacher": seconds})
            return with_students(plan, corpus, left - seconds)
    least = (seconds / TEACHER_SHARE + search_s + 60 * request.minutes - left) / 60
    return replace(alone, why=f"{_no_time(request)}; about {math.ceil(least)} would do", costs=costs)


def with_students(plan: Plan, corpus: Corpus, left_s: float) -> Plan:
    """Return `plan` with the students that can be trained in the time left."""
    costs, rows = plan.costs, len(corpus.rows("train"))
    ngram_s = 1.5 * costs.linear_s + EXPORT_S + _unlabeled_s(plan.request, costs)
    for students in STUDENTS if plan.request.target not in NGRAM_TARGETS else ():
        sizes = [int(each.partition(":")[2]) for each in students if each.startswith("layers:")]
        if max(sizes) >= max(costs.layers, 2):
            continue
        for share in (1.0, 0.5):
            epochs = _epochs(rows, STUDENT_STEPS, STUDENT_EPOCHS, share)
            seconds = ngram_s + costs.linear_s + _search_seconds(costs, sizes, rows, epochs)
            if seconds <= left_s:
                return _chosen(plan, students, epochs, seconds)
    return _chosen(plan, ("ngram",), _epochs(rows, STUDENT_STEPS, STUDENT_EPOCHS, 0.5), ngram_s)


def _chosen(plan: Plan, students: Sequence[str], epochs: int, seconds: float) -> Plan:
    timed = plan.seconds | {"students": seconds}
    return replace(plan, students=tuple(students), student_epochs=epochs, seconds=timed)


def _no_time(request: Request) -> str:
    minutes = "1 minute is" if request.minutes == 1 else f"{request.minutes:g} minutes are"
    return f"{minutes} too short to fine-tune an encoder on these rows on this machine"


def _epochs(rows: float, steps: int, limits: tuple[int, int], share: float) -> int:
    """Return the epochs with about so many training steps, times `share`, within the limits."""
    least, most = limits
    wanted = min(most, max(least, math.ceil(steps * TrainingSettings.batch_size / rows)))
    return max(least, math.ceil(share * wanted))


def teacher_seconds(costs: Costs, corpus: Corpus, folds: int, epochs: int, searches: bool) -> float:
    """Return the expected time of the teacher's training."""
    rows, everything = len(corpus.rows("train")), len(corpus.rows("all"))
    trained, held_out = rows * (folds - 1) / folds, rows / folds

    def training(epochs: float, texts: float) -> float:
        return epochs * (texts * costs.train_s + held_out * costs.predict_s)

    search = TRIALS * training(TRIAL_EPOCHS, min(TRIAL_TEXTS, trained)) if searches else 0.0
    return costs.linear_s + search + folds * (training(epochs, trained) + everything * costs.predict_s)


def _search_seconds(costs: Costs, layers: Sequence[int], rows: int, epochs: int) -> float:
    """Return the expected time of training the transformers of a search, of which one is trained to its end."""
    by_cost = sorted((costs.student_s(count) for count in layers), reverse=True)
    rates = TRIALS * TRIAL_EPOCHS * min(TRIAL_TEXTS, rows)
    trained = sum(by_cost) * rates
    shares = (1.0, 0.5, 0.25)  # successive halving, the largest last to leave
    trained += sum(epochs * rows * own * shares[min(place, 2)] for place, own in enumerate(by_cost))
    return trained + 2 * EXPORT_S  # the student and the cascade


def _unlabeled_s(request: Request, costs: Costs) -> float:
    return 0.0 if request.unlabelled is None else len(read_unlabeled(Path(request.unlabelled))) * costs.predict_s * 3


def plan_file(name: str) -> Path:
    """Return the file that keeps the plan of this name."""
    return RUNS / f"{name}-auto.json"


def save_plan(plan: Plan) -> None:
    """Keep a plan for the command that resumes it."""
    write_text(plan_file(plan.request.name), json.dumps(asdict(plan), indent=2, ensure_ascii=False) + "\n")


def known_plan(request: Request) -> Plan | None:
    """Return the plan that was kept for this request; None if there is none.

    A plan without a teacher gives way to a request with other minutes or another model.

    Raises: InputError if the plan of this name is for another request.
    """
    found = read_json(plan_file(request.name))
    if found is None:
        return None
    asked = json.loads(json.dumps(asdict(request)))
    before = {"target": ExportSettings.target} | found["request"]
    differ = [key for key in asked if asked[key] != before.get(key)]
    if differ and found["model"] is None and set(differ) <= {"model", "minutes", "unlabelled"}:
        return None
    if differ:
        raise InputError(
            f"{plan_file(request.name)}: was made with a different {', '.join(differ)}; give another --name, or "
            "--force to start again"
        )
    lists = {key: tuple(found[key]) for key in ("students",)}
    return Plan(**found | lists | {"request": request, "costs": Costs(**found["costs"])})


def describe(plan: Plan) -> list[str]:
    """Return the plan as lines for people."""
    minutes = {part: max(1, round(seconds / 60)) for part, seconds in plan.seconds.items()}
    lines = [
        f"first: an n-gram student from the labels alone, beside the linear baseline ({minutes['labels alone']} min)"
    ]
    if plan.model is None:
        return [*lines, f"no teacher: {plan.why}"]
    rate = "learning rate by trials" if plan.learning_rate is None else f"learning rate {plan.learning_rate:g}"
    lines.append(
        f"teacher: {plan.model}, {plan.folds} folds, at most {plan.epochs} epochs, {rate} ({minutes['teacher']} min)"
    )
    epochs = f", at most {plan.student_epochs} epochs" if len(plan.students) > 1 else ""
    return [*lines, f"students: {', '.join(plan.students)}{epochs} ({minutes['students']} min at most)"]


def corpus_of(plan: Plan) -> Corpus:
    """Return the corpus with the folds of the plan."""
    return corpus_from_table(read_source(plan.request.corpus), replace(plan.request.corpus, folds=plan.folds))


def _options(recipe: Recipe) -> str:
    export = recipe.run.pipeline.endswith("quant")
    tables = [recipe.corpus, recipe.model, recipe.training, recipe.distillation, *([recipe.export] if export else [])]
    run = recipe.run if export else replace(recipe.run, pipeline="baseline")
    return "".join(map(options_text, [*tables, run]))


def _quoted(value: Any) -> str:
    return shlex.quote(str(value))

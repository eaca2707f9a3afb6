"""What `hbt auto` plans for the time there is."""

import shlex
import time
from pathlib import Path
from typing import Any

import click
import pytest

from tests.helpers import contents
from toolkit.cli import verbs
from toolkit.config.cli_options import given
from toolkit.config.settings import CorpusSettings
from toolkit.config.toml_file import recipe_from
from toolkit.utils.errors import InputError
from toolkit.workflows.auto import plan as planning
from toolkit.workflows.auto.command import explain, request_of
from toolkit.workflows.auto.costs import Costs
from toolkit.workflows.auto.plan import Plan, known_plan, make_plan, save_plan
from toolkit.workflows.auto.understanding import understand
from toolkit.workflows.pipeline import training_recipe
from toolkit.workflows.student_search import recipe_of_teacher

COSTS = Costs(linear_s=10.0, train_s=0.1, predict_s=0.03, layer_s=0.02, layers=4)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "linear_costs", lambda corpus: Costs(linear_s=10.0))
    monkeypatch.setattr(planning, "with_encoder", lambda costs, *_: COSTS)


def planned(minutes: float, model: str | None = "shape:4x32") -> Plan:
    corpus = CorpusSettings(data="comments.csv")
    return make_plan(request_of(corpus, model, minutes, None, None), understand(corpus), time.monotonic())


def test_more_minutes_give_a_better_teacher_and_more_students(workplace: Path, timed: None) -> None:
    plans = [planned(minutes) for minutes in (1, 7, 15, 600)]
    assert plans[0].model is None
    assert plans[0].why.startswith("1 minute is too short to fine-tune")
    assert all(plan.model == "shape:4x32" for plan in plans[1:])
    effort = [plan.folds * plan.epochs for plan in plans[1:]]
    assert effort == sorted(effort) and effort[0] < effort[-1]
    assert (plans[-1].folds, plans[-1].learning_rate) == (5, None)
    assert plans[-1].students == ("ngram", "layers:1", "layers:2", "cascade")  # the teacher has four layers
    for plan in plans[1:]:
        assert plan.seconds["labels alone"] + plan.seconds["teacher"] <= 60 * plan.request.minutes


def test_if_the_hub_cannot_be_reached_the_labels_are_enough(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "linear_costs", lambda corpus: Costs(linear_s=1.0))
    found = planned(60, model=None)
    assert found.model is None
    assert found.why.startswith("sagorsarker/bangla-bert-base: cannot be loaded")
    with pytest.raises(InputError, match="no/such: cannot be loaded"):
        planned(60, model="no/such")


def test_the_explained_commands_have_the_settings_of_the_plan(workplace: Path, timed: None) -> None:
    before = contents(workplace)
    request = request_of(
        CorpusSettings(data="comments.csv", label_names=("no", "yes")), "shape:4x32", 600, "mine", None
    )
    page = explain(request, 2.0, 3.0)
    assert contents(workplace) == before
    alone, teacher, students = (shlex.split(line)[1:] for line in page.splitlines() if line.startswith("hbt "))
    plan = make_plan(
        request_of(understand(request.corpus).corpus.settings, "shape:4x32", 600, "mine", None),
        understand(request.corpus),
        time.monotonic(),
    )
    assert recipe_from(None, parsed(alone)) == plan.labels_alone
    assert training_recipe(recipe_from(None, parsed(teacher))) == plan.teacher
    typed = parsed(students)
    assert (typed.pop("budget_ms"), typed.pop("budget_mb"), typed.pop("specs")) == (2.0, 3.0, " ".join(plan.students))
    data = typed.pop("data")
    assert recipe_of_teacher(data, typed) == recipe_of_teacher("comments.csv", plan.search)
    assert page.split("recipe.toml\n")[1].startswith("[corpus]\n")


def parsed(words: list[str]) -> dict[str, Any]:
    command = verbs.get_command(click.Context(verbs), words[0])
    assert command is not None
    return {k: v for k, v in given(command.make_context(words[0], words[1:]).params).items() if v is not False}


def test_a_plan_is_kept_and_another_request_of_the_same_name_is_refused(workplace: Path, timed: None) -> None:
    made = planned(15)
    assert known_plan(made.request) is None
    save_plan(made)
    assert known_plan(made.request) == made
    with pytest.raises(InputError, match=r"comments-auto.json: was made with a different minutes; give another --name"):
        known_plan(planned(16).request)


def test_a_plan_without_a_teacher_gives_way_to_one_with_more_minutes(workplace: Path, timed: None) -> None:
    short = planned(1)
    save_plan(short)
    more = planned(15)
    assert known_plan(more.request) is None
    assert more.labels_alone == short.labels_alone  # its run is used again

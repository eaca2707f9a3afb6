"""Structured pruning: cut to a share of the weights, to milliseconds or to megabytes, in one round or in several."""

from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from toolkit.config.settings import PruningSettings
from toolkit.modeling.architecture import Sizes, encoder_weights, sizes, summary_of
from toolkit.modeling.classifier import Classifier
from toolkit.pruning.cost_model import CostModel, measure_shapes, measured_costs
from toolkit.pruning.plan import (
    Objective,
    Plan,
    Scores,
    Trial,
    cut_copy,
    most_promising,
    plans_within,
    scores_of,
    weight_costs,
)
from toolkit.pruning.recovery import Recovery
from toolkit.pruning.selection import BLOCK, Costs
from toolkit.utils.console import say
from toolkit.utils.errors import InputError

CLOSE, TRIES = 0.05, 4
"""A measured latency that is off by less than this share is what was asked for; else the plan is made anew."""


@dataclass(frozen=True)
class Budget:
    """How much may be left, and what the parts cost in that measure."""

    asked: str
    """The option as it was typed."""
    unit: str
    costs: Costs
    allowed: float
    target: str
    texts: list[str]
    """What is timed, as which target."""
    model: CostModel | None = None
    """Where the costs were measured; None where weights are counted."""


def budget_of(classifier: Classifier, pruning: PruningSettings, target: str, texts: list[str], cache: Path) -> Budget:
    """The budget that the settings ask for.

    texts: what is timed as `target`; validation rows.
    Raises: InputError if the classifier is within it already, or cannot be brought there.
    """
    whole, model = sizes(classifier.network), None
    if pruning.prune_to_ms is None and pruning.prune_to_mb is None:
        costs, unit, asked = weight_costs(classifier), "weights", f"--prune-sparsity {pruning.prune_sparsity:g}"
        allowed = (1 - pruning.prune_sparsity) * costs.of(whole)
    else:
        model = measured_costs(classifier, target, texts, cache)
        if pruning.prune_to_ms is not None:
            costs, unit, allowed = model.ms, "ms", pruning.prune_to_ms
        else:
            assert pruning.prune_to_mb is not None
            costs, unit, allowed = model.mb, "MB", pruning.prune_to_mb
        asked = f"--prune-to-{unit.lower()} {allowed:g}"
    found = Budget(asked, unit, costs, allowed, target, texts, model)
    now, least = found.costs.of(whole), found.costs.of([Sizes(1, min(BLOCK, whole[0].neurons))])
    if now <= found.allowed:
        raise InputError(f"{found.asked}: it takes {now:.3g} {found.unit} as it is; give less")
    if least > found.allowed:
        raise InputError(
            f"{found.asked}: one layer with one head and {BLOCK} neurons still takes "
            f"{least:.3g} {found.unit}; give more, or start from a smaller student"
        )
    return found


def prune_structured(
    source: Classifier,
    objective: Objective,
    pruning: PruningSettings,
    budget: Budget,
    recover: Recovery,
) -> tuple[Classifier, dict[str, Any]]:
    """Cut `source` until it is within the budget, and let it recover; also what was cut and measured.

    Plans are kept in the folder of the recovery's work, so that a pruning that was broken off goes on with the network
    that it had cut. They are compared by a trial where there is recovery, else by the loss right after the cut.
    Raises: InputError if no plan is within the budget.
    """
    recover.work.mkdir(parents=True, exist_ok=True)
    classifier, history = source, []
    whole = budget.costs.of(sizes(source.network))
    loss_before = objective.loss_of(source)
    told: dict[str, Any] = {}
    for step in range(1, pruning.prune_steps + 1):
        last = step == pruning.prune_steps
        file = recover.work / f"plan-{step}.json"
        if not file.is_file():
            allowed = whole - (whole - budget.allowed) * step / pruning.prune_steps
            how = recover.trial if pruning.fine_tune_after_prune else None
            plan, told = _plan(classifier, objective, replace(budget, allowed=allowed), how, measured=last)
            plan.save(file, told)
        plan, told = Plan.load(file)
        classifier = cut_copy(classifier, plan.kept)
        told |= {"loss_before": loss_before, "loss_after_cut": plan.loss}
        say(f"cut to {summary_of(plan.left)}; loss {loss_before:.4f} before, {plan.loss:.4f} after")
        if pruning.fine_tune_after_prune:
            history.append(recover(classifier, pruning.fine_tune_epochs if last else 1, f"round-{step}"))
    removed = 1 - encoder_weights(classifier.network) / encoder_weights(source.network)
    left = [asdict(size) for size in sizes(classifier.network)]
    return classifier, told | {"left": left, "sparsity": removed, "recovery": history}


def _plan(
    classifier: Classifier, objective: Objective, budget: Budget, trial: Trial | None, measured: bool
) -> tuple[Plan, dict[str, Any]]:
    """A plan within the budget; one of milliseconds is exported, timed and, if it misses, made anew."""
    scores = scores_of(classifier, objective)
    plans = _within(classifier, objective, scores, budget, budget.allowed)
    plan, losses = most_promising(classifier, plans, trial)
    told: dict[str, Any] = {
        "plans": [
            {"dropped": each.dropped, "loss_after_cut": each.loss} | ({"loss_after_trial": loss} if loss else {})
            for each, loss in zip_longest(plans, losses)
        ]
    }
    if budget.model is None:
        return plan, told
    told |= {"asked": budget.allowed, "unit": budget.unit}
    told |= {"cost_model_error": budget.model.ms_error if budget.unit == "ms" else budget.model.mb_error}
    if budget.unit == "MB" or not measured:
        return plan, told | {"predicted": budget.costs.of(plan.left)}
    allowed = budget.allowed
    tried: list[tuple[float, Plan]] = []
    tries = []
    while True:
        whole = sizes(classifier.network)
        uncut, shape = measure_shapes(classifier, [whole, plan.left], budget.target, budget.texts)
        # The machine may be faster or slower than when costs were measured; the share of the uncut is what counts.
        ms = shape.ms / uncut.ms * budget.costs.of(whole)
        tries.append({"predicted": budget.costs.of(plan.left), "measured": ms, "raw": shape.ms, "raw_uncut": uncut.ms})
        tried.append((abs(ms / budget.allowed - 1), plan))
        if tried[-1][0] <= CLOSE or len(tried) == TRIES:
            return min(tried, key=lambda each: each[0])[1], told | {"tries": tries}
        allowed *= budget.allowed / ms
        (plan,) = _within(classifier, objective, scores, budget, allowed, [plan.dropped])


def _within(
    classifier: Classifier,
    objective: Objective,
    scores: Scores,
    budget: Budget,
    allowed: float,
    dropping: list[int] | None = None,
) -> list[Plan]:
    plans = plans_within(classifier, objective, scores, budget.costs, allowed, dropping)
    if not plans:
        raise InputError(
            f"{budget.asked}: no plan takes {allowed:.3g} {budget.unit} or less; give more, or a smaller student"
        )
    return plans

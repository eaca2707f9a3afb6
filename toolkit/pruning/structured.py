"""Structured pruning to a share of the weights, a latency or a size, in one or several rounds."""

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

TOLERANCE, TRIES = 0.05, 4
"""Relative tolerance of the measured latency, and the most plans that are measured to reach it."""


@dataclass(frozen=True)
class Budget:
    """The largest allowed cost of a pruned network, and the costs of its parts in the same unit."""

    option: str
    """The option and its value, for messages."""
    unit: str
    costs: Costs
    allowed: float
    target: str
    """The target that is timed."""
    texts: list[str]
    """The texts used for timing."""
    model: CostModel | None = None
    """The cost model for ms and MB; None if weights are counted."""


def budget_of(classifier: Classifier, pruning: PruningSettings, target: str, texts: list[str], cache: Path) -> Budget:
    """Return the budget in the settings.

    texts: texts used for timing (validation rows).
    Raises: InputError if the classifier is already within the budget, or cannot be pruned to it.
    """
    full, model = sizes(classifier.network), None
    if pruning.prune_to_ms is None and pruning.prune_to_mb is None:
        costs, unit, option = weight_costs(classifier), "weights", f"--prune-sparsity {pruning.prune_sparsity:g}"
        allowed = (1 - pruning.prune_sparsity) * costs.of(full)
    else:
        model = measured_costs(classifier, target, texts, cache)
        if pruning.prune_to_ms is not None:
            costs, unit, allowed = model.ms, "ms", pruning.prune_to_ms
        else:
            assert pruning.prune_to_mb is not None
            costs, unit, allowed = model.mb, "MB", pruning.prune_to_mb
        option = f"--prune-to-{unit.lower()} {allowed:g}"
    now, least = costs.of(full), costs.of([Sizes(1, min(BLOCK, full[0].neurons))])
    if now <= allowed:
        raise InputError(f"{option}: the unpruned model takes only {now:.3g} {unit}; give less")
    if least > allowed:
        raise InputError(
            f"{option}: one layer with one head and {BLOCK} neurons still takes {least:.3g} {unit}; "
            "give more, or start from a smaller student"
        )
    return Budget(option, unit, costs, allowed, target, texts, model)


def prune_structured(
    source: Classifier,
    objective: Objective,
    pruning: PruningSettings,
    budget: Budget,
    recover: Recovery,
) -> tuple[Classifier, dict[str, Any]]:
    """Return `source` pruned to the budget and recovered, and details: what was removed and measured.

    Plans are saved in the work folder of `recover`, so that an interrupted pruning resumes with the same pruned
    network. They are compared by a trial if there is recovery, else by the loss right after pruning.
    Raises: InputError if no plan is within the budget.
    """
    recover.work.mkdir(parents=True, exist_ok=True)
    classifier, history = source, []
    full = budget.costs.of(sizes(source.network))
    loss_before = objective.loss_of(source)
    details: dict[str, Any] = {}
    for step in range(1, pruning.prune_steps + 1):
        last = step == pruning.prune_steps
        file = recover.work / f"plan-{step}.json"
        known = Plan.load(file)
        if known is None:
            allowed = full - (full - budget.allowed) * step / pruning.prune_steps
            trial = recover.trial if pruning.fine_tune_after_prune else None
            plan, details = _plan(classifier, objective, replace(budget, allowed=allowed), trial, measured=last)
            plan.save(file, details)
            known = Plan.load(file)  # as a resumed run reads it
            assert known is not None
        plan, details = known
        classifier = cut_copy(classifier, plan.kept)
        details |= {"loss_before": loss_before, "loss_after_cut": plan.loss}
        say(f"pruned to {summary_of(plan.left)}; loss {loss_before:.4f} before, {plan.loss:.4f} after")
        if pruning.fine_tune_after_prune:
            history.append(recover(classifier, pruning.fine_tune_epochs if last else 1, f"round-{step}"))
    removed = 1 - encoder_weights(classifier.network) / encoder_weights(source.network)
    left = [asdict(size) for size in sizes(classifier.network)]
    return classifier, details | {"left": left, "sparsity": removed, "recovery": history}


def _plan(
    classifier: Classifier, objective: Objective, budget: Budget, trial: Trial | None, measured: bool
) -> tuple[Plan, dict[str, Any]]:
    """Return a plan within the budget, and its details.

    measured: export and time a plan for a latency budget, and plan again if the latency is out of tolerance.
    """
    scores = scores_of(classifier, objective)
    plans = _within(classifier, objective, scores, budget, budget.allowed)
    plan, losses = most_promising(classifier, plans, trial)
    details: dict[str, Any] = {
        "plans": [
            {"dropped": each.dropped, "loss_after_cut": each.loss} | ({"loss_after_trial": loss} if loss else {})
            for each, loss in zip_longest(plans, losses)
        ]
    }
    if budget.model is None:
        return plan, details
    details |= {"asked": budget.allowed, "unit": budget.unit}
    details |= {"cost_model_error": budget.model.ms_error if budget.unit == "ms" else budget.model.mb_error}
    if budget.unit == "MB" or not measured:
        return plan, details | {"predicted": budget.costs.of(plan.left)}
    allowed = budget.allowed
    tried: list[tuple[float, Plan]] = []
    tries = []
    while True:
        full = sizes(classifier.network)
        unpruned, pruned = measure_shapes(classifier, [full, plan.left], budget.target, budget.texts)
        # The speed of the machine may have changed since the costs were measured, so only the ratio is used.
        ms = pruned.ms / unpruned.ms * budget.costs.of(full)
        predicted = budget.costs.of(plan.left)
        tries.append({"predicted": predicted, "measured": ms, "raw": pruned.ms, "raw_uncut": unpruned.ms})
        tried.append((abs(ms / budget.allowed - 1), plan))
        if tried[-1][0] <= TOLERANCE or len(tried) == TRIES:
            return min(tried, key=lambda each: each[0])[1], details | {"tries": tries}
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
            f"{budget.option}: no plan takes {allowed:.3g} {budget.unit} or less; "
            "give more, or start from a smaller student"
        )
    return plans

"""`hbt targets`: what can be made of a classifier, here and now."""

from collections.abc import Sequence
from dataclasses import dataclass

from exporters.registry import exporter, targets
from toolkit.utils.console import print_table
from toolkit.utils.errors import InputError


@dataclass(frozen=True)
class Target:
    """One target."""

    name: str
    summary: str
    distribution: str
    """What brings it."""
    missing: str
    """Why it cannot be made here, and what to install; empty if it can."""


def list_targets() -> list[Target]:
    """All targets, those of other distributions as well. One that is broken is listed with what is wrong."""
    return [_target(name, distribution) for name, distribution in targets().items()]


def _target(name: str, distribution: str) -> Target:
    try:
        target = exporter(name)
    except InputError as error:
        return Target(name, "", distribution, str(error).partition(": ")[2])
    return Target(name, target.summary, distribution, target.available() or "")


def render(found: Sequence[Target]) -> None:
    """Print the targets as a table on stdout."""
    lines = [
        {
            "Target": each.name,
            "What": each.summary,
            "From": each.distribution,
            "Here": each.missing or "yes",
        }
        for each in found
    ]
    print_table(lines, "targets of hbt compress --target", left=("Target", "What", "From", "Here"))

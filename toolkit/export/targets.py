"""`hbt targets`: list the targets and whether they are available here."""

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
    """The distribution that provides the exporter."""
    missing: str
    """Why the target is not available here and what to install; empty if it is available."""


def list_targets() -> list[Target]:
    """Return all targets, including third-party ones. A broken one is listed with its error."""
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
            "Description": each.summary,
            "Provided by": each.distribution,
            "Available": each.missing or "yes",
        }
        for each in found
    ]
    print_table(lines, "targets of hbt compress --target", left=("Target", "Description", "Provided by", "Available"))

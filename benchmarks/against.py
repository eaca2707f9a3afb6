"""Compare a measurement with an earlier one of the same models: what became slower or faster beyond noise."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.intervals import ratio_of_runs
from benchmarks.report import read_json
from toolkit.latency.measure import Measurement
from toolkit.utils.console import print_table, warn
from toolkit.utils.errors import InputError
from toolkit.utils.machine import Machine


@dataclass(frozen=True)
class Change:
    """The mean time per text of a model now, compared with an earlier measurement."""

    name: str
    before_ms: float
    now_ms: float
    ratio: float
    """Now divided by before: 1.1 is ten percent slower."""
    low: float
    high: float
    """95 % interval of the ratio."""
    verdict: str
    """slower, faster, or within noise."""


def read_earlier(file: Path) -> tuple[list[Measurement], Machine]:
    """Return measurements and machine from a JSON file of `hbt bench`. Raises: InputError if it is none."""
    try:
        measurements, machine, _ = read_json(file)
    except OSError as error:
        raise InputError(
            f"--against {file}: cannot be read ({error.strerror}); give the JSON file of an earlier bench"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(f"--against {file}: not the JSON file of hbt bench; give one from its folder -o") from None
    if not any(each.rounds_ms_per_text for each in measurements):
        raise InputError(f"--against {file}: has no rounds, since an earlier version of hbt wrote it; measure it again")
    return measurements, machine


def changes(earlier: Sequence[Measurement], now: Sequence[Measurement]) -> list[Change]:
    """Return how the time per text of each model changed that both have, in the same scenario on as many threads."""
    before = {_conditions(each): each for each in earlier}
    found = []
    for model in now:
        old = before.get(_conditions(model))
        ratio = None if old is None else ratio_of_runs(old.rounds_ms_per_text, model.rounds_ms_per_text)
        if old is None or ratio is None or old.ms_per_text is None or model.ms_per_text is None:
            continue
        verdict = "slower" if ratio.low > 1 else "faster" if ratio.high < 1 else "within noise"
        found.append(
            Change(model.name, old.ms_per_text, model.ms_per_text, ratio.value, ratio.low, ratio.high, verdict)
        )
    return found


def _conditions(model: Measurement) -> tuple[str, int, str, float | None]:
    return model.name, model.threads, model.scenario, model.p99_limit_ms


def show(found: Sequence[Change], earlier: Machine, machine: Machine, file: Path) -> None:
    """Print the changes, and a warning if they are between two processors."""
    lines = [
        {
            "model": each.name,
            "before ms": f"{each.before_ms:.4g}",
            "now ms": f"{each.now_ms:.4g}",
            "change": f"{100 * (each.ratio - 1):+.1f} %",
            "95 %": f"{100 * (each.low - 1):+.1f} … {100 * (each.high - 1):+.1f}",
            "verdict": each.verdict,
        }
        for each in found
    ]
    print_table(lines, f"mean time per text, compared with {file}", left=("model", "verdict"))
    if (earlier.cpu, earlier.isa) != (machine.cpu, machine.isa):
        warn(f"warning: {file} is from another processor ({earlier.cpu}, {earlier.isa})")


def slower_than(found: Sequence[Change], percent: float) -> list[Change]:
    """Return the changes that are slower beyond noise, by more than `percent`."""
    return [each for each in found if each.verdict == "slower" and each.ratio > 1 + percent / 100]


def as_records(found: Sequence[Change]) -> list[dict[str, Any]]:
    """Return the changes as JSON values."""
    return [asdict(each) for each in found]

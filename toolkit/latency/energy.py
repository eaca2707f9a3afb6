"""Energy of the processor from RAPL, where the system lets this user read it.

It is that of the whole processor package: of everything that ran on it meanwhile, and of its idle parts.
"""

from pathlib import Path

ROOT = Path("/sys/class/powercap")


def counters(root: Path | None = None) -> dict[Path, int]:
    """Return the energy counter of each processor package in microjoules; empty where none can be read."""
    found = {}
    for folder in sorted((root or ROOT).glob("intel-rapl:*")):
        if folder.name.count(":") > 1:  # a part of a package, which counts it already
            continue
        try:
            found[folder] = int((folder / "energy_uj").read_text("utf-8"))
        except (OSError, ValueError):
            continue
    return found


def joules_since(before: dict[Path, int], root: Path | None = None) -> float | None:
    """Return the energy used since `before`, from `counters`; None if nothing can be read.

    A counter starts again at zero after max_energy_range_uj; more than one such turn goes unseen.
    """
    now = counters(root)
    if not before or now.keys() != before.keys():
        return None
    used = 0
    for folder, start in before.items():
        if now[folder] < start:
            try:
                used += int((folder / "max_energy_range_uj").read_text("utf-8"))
            except (OSError, ValueError):
                return None
        used += now[folder] - start
    return used / 1e6

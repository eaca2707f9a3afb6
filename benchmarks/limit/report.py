"""Print rooflines: the limit, the share of it that a package reaches, and where the rest of the time goes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import BUSY, corpus_of
from benchmarks.limit.roofline import OPERATORS_SHOWN, Roofline, rooflines
from toolkit.latency.foreign import is_foreign
from toolkit.utils.console import print_table, say
from toolkit.utils.errors import require
from toolkit.utils.machine import busy_share, describe_machine


def report_rooflines(folders: Sequence[Path], data: str | None, threads: int, quiet: bool) -> dict[str, Any]:
    """Measure each package on its test rows, print tables unless `quiet`, and return all figures as JSON values.

    Raises: InputError if a folder is not a package, its data are missing, or its operations are not known.
    """
    for folder in folders:
        require(not is_foreign(str(folder)), str(folder), "--roofline reads packages of hbt; leave it out")
    machine, busy = describe_machine(), busy_share()
    if busy > BUSY:
        say(f"other processes use {busy:.0%} of the CPUs, so times will be too long; measure on a quiet machine")
    found = []
    for folder in folders:
        corpus = corpus_of(folder, data)
        say(f"{folder.name}: operations, peaks of this machine and profile, about half a minute")
        found += rooflines(folder, corpus.take(corpus.rows("test")), threads)
    if not quiet:
        for each in found:
            show(each)
        print(f"\n{machine.cpu}, {machine.isa}. Times are means per text on {threads} thread{'s' * (threads > 1)}.")
    return {
        "machine": machine.cpu,
        "isa": machine.isa,
        "busy_share": busy,
        "rooflines": [each.as_dict() for each in found],
    }


def show(each: Roofline) -> None:
    """Print the tables of one roofline."""
    peaks, work = each.peaks, each.work
    lines = [
        ("int8 operations", f"{work.int8_operations:,.0f}", f"{peaks.int8_ops_s / 1e9:,.1f} G/s, {peaks.int8_by}"),
        ("fp32 operations", f"{work.fp32_operations:,.0f}", f"{peaks.fp32_ops_s / 1e9:,.1f} G/s, {peaks.fp32_by}"),
        ("bytes of weights", f"{work.weight_bytes:,.0f}", _traffic(peaks.weights_bytes_s, peaks.weights_state_bytes)),
        ("bytes of tables", f"{work.table_bytes:,.0f}", f"in {work.table_reads:,.0f} reads"),
        ("memory", "", _traffic(peaks.memory_bytes_s, peaks.memory_state_bytes)),
    ]
    rows = [dict(zip(("work", "per text", "measured peak"), line, strict=True)) for line in lines]
    title = f"{each.name}: {each.texts} texts of {each.tokens:.0f} tokens on average"
    print_table(rows, title, left=("work", "measured peak"))
    limit, losses = each.limit_us, each.losses_us()
    parts = [("limit", limit, f"the longer of {each.compute_us:.2f} for operations, {each.traffic_us:.2f} for bytes")]
    parts += [(name, time, "") for name, time in sorted(losses.items(), key=lambda item: -item[1])]
    parts.append(("text to label", each.text_us, f"{100 * each.share:.0f} % of the limit reached"))
    rows = [
        {"where the time goes": name, "µs": f"{time:,.1f}", "share": f"{time / each.text_us:.0%}", "note": note}
        for name, time, note in parts
    ]
    print_table(rows, "", left=("where the time goes", "note"))
    if each.operators_us:
        total = sum(each.operators_us.values())
        top = [*each.operators_us.items()][:OPERATORS_SHOWN]
        rows = [{"operator": name, "µs": f"{time:,.1f}", "share": f"{time / total:.0%}"} for name, time in top]
        print_table(rows, "slowest operators, by the profile of ONNX Runtime", left=("operator",))


def _traffic(rate: float, state_bytes: int) -> str:
    return f"{rate / 1e9:,.1f} GB/s over arrays of {state_bytes / 2**20:,.1f} MiB"

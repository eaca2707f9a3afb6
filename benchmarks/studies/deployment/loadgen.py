"""Cross-check: the same package under LoadGen of MLPerf inference and under the timing of hbt.

    pip install 'hbt-toolkit[loadgen]'
    python -m benchmarks.studies.deployment.loadgen PACKAGE [PACKAGE …] --out loadgen.csv

The scenario is single-stream: the next text is sent when the last one is labeled. Both measure in the same process, on
one thread, in turns, on the test texts of the package's corpus; LoadGen draws its own random order of them. p50 and p90
of LoadGen are those of its summary.
"""

import argparse
import re
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import corpus_of
from toolkit import package
from toolkit.latency.timing import Latency, WarmUp, fixed_order, labeling, time_latency, warm_up
from toolkit.latency.worker import pin_to_cpus
from toolkit.utils.console import print_table, say
from toolkit.utils.files import write_lines

QUERIES, ROUNDS = 1200, 5


def main() -> None:
    given = _arguments()
    pin_to_cpus(1)
    lines = []
    for folder in given.packages:
        corpus = corpus_of(folder, None)
        texts = corpus.take(corpus.rows("test"))
        lines.append({"package": folder.name} | compared(package.load(folder, threads=1), texts))
        write_lines(lines, given.out)
    shown = [{key: str(value) for key, value in line.items()} for line in lines]
    print_table(shown, "hbt against LoadGen, single stream", left=("package",))


def compared(model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Return p50 and p90 in milliseconds of both, as medians over ROUNDS turns, and their differences in percent."""
    repeated = [texts[i] for i in fixed_order(texts)] * (1 + QUERIES // len(texts))
    warm_up(model, repeated[:20], WarmUp())
    own, other = [], []
    for turn in range(ROUNDS):
        say(f"round {turn + 1} of {ROUNDS}")
        samples = time_latency(model, repeated, Latency(max_samples=QUERIES, warmup=0))
        deciles = statistics.quantiles(samples, n=10, method="inclusive")
        own.append((deciles[4], deciles[8]))
        other.append(under_loadgen(model, texts))
    found: dict[str, Any] = {}
    for place, name in enumerate(("p50", "p90")):
        ours, theirs = (statistics.median(each[place] for each in measured) for measured in (own, other))
        found |= {f"hbt_{name}_ms": round(ours, 5), f"loadgen_{name}_ms": round(theirs, 5)}
        found |= {f"{name}_difference_percent": round(100 * (ours / theirs - 1), 2)}
    return found


def under_loadgen(model: Any, texts: Sequence[str]) -> tuple[float, float]:
    """Return p50 and p90 in milliseconds from the summary of LoadGen."""
    import mlperf_loadgen as loadgen

    label = labeling(model)

    def issue(queries: Any) -> None:
        for query in queries:
            label([texts[query.index]])
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, 0, 0)])

    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = QUERIES
    settings.min_duration_ms = 0
    with tempfile.TemporaryDirectory(prefix="hbt-loadgen-") as folder:
        logs = loadgen.LogSettings()
        logs.log_output.outdir = folder
        logs.log_output.copy_summary_to_stdout = False
        logs.enable_trace = False
        system = loadgen.ConstructSUT(issue, lambda: None)
        library = loadgen.ConstructQSL(len(texts), len(texts), lambda _: None, lambda _: None)
        loadgen.StartTestWithLogSettings(system, library, settings, logs)
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text("utf-8")
    return _percentile(summary, 50), _percentile(summary, 90)


def _percentile(summary: str, percentile: int) -> float:
    """Return a percentile in milliseconds from a summary, which has nanoseconds."""
    (found,) = re.findall(rf"{percentile}\.00 percentile latency \(ns\)\s*:\s*(\d+)", summary)
    return int(found) / 1e6


def _arguments() -> argparse.Namespace:
    description = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.deployment.loadgen", description=description)
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("loadgen.csv"))
    return parser.parse_args()


if __name__ == "__main__":
    main()

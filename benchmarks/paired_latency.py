"""Compare the latency of packages: `python -m benchmarks.paired_latency PACKAGE PACKAGE …`.

All packages are loaded in one process and score the test texts of the first one's corpus in interleaved blocks of 20,
on one thread. Other load on the machine affects all of them equally, so that ratios are more stable than between two
runs of `hbt bench`.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.bench import corpus_of
from toolkit import package
from toolkit.latency.timing import fixed_order, times_in_turns


def main() -> None:
    """Print one JSON line per package: median latency in milliseconds and the speedup over the first package."""
    summary = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired_latency", description=summary)
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--texts", type=int, default=1200, help="maximum number of texts (default: 1200)")
    arguments = parser.parse_args()
    corpus = corpus_of(arguments.packages[0], None)
    texts = corpus.take(corpus.rows("test"))
    chosen = [texts[i] for i in fixed_order(texts)[: arguments.texts]]
    models = [package.load(folder, threads=1) for folder in arguments.packages]
    medians = np.median(times_in_turns(models, chosen), axis=0)
    for folder, p50 in zip(arguments.packages, medians, strict=True):
        print(json.dumps({"package": folder.name, "p50_ms": float(p50), "times_faster": float(medians[0] / p50)}))


if __name__ == "__main__":
    main()

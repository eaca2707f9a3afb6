"""Which of these packages is faster, and by how much? `python -m benchmarks.in_turns PACKAGE PACKAGE …`.

All are loaded in one process and answer the test texts of the first one's corpus in turns of 20, so that whatever else
the machine does meets all alike: ratios are steadier than between two runs of `hbt bench`. One thread.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.bench import corpus_of
from toolkit import package
from toolkit.latency.timing import fixed_order, times_in_turns


def main() -> None:
    summary = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_turns", description=summary)
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--texts", type=int, default=1200, help="texts at most (default 1200)")
    given = parser.parse_args()
    corpus = corpus_of(given.packages[0], None)
    texts = corpus.take(corpus.rows("test"))
    chosen = [texts[i] for i in fixed_order(texts)[: given.texts]]
    models = [package.load(folder, threads=1) for folder in given.packages]
    medians = np.median(times_in_turns(models, chosen), axis=0)
    for folder, p50 in zip(given.packages, medians, strict=True):
        print(json.dumps({"package": folder.name, "p50_ms": float(p50), "times_faster": float(medians[0] / p50)}))


if __name__ == "__main__":
    main()

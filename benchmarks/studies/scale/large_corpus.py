"""Seconds and peak memory of reading, splitting and fitting a large labeled file of short texts.

    python -m benchmarks.studies.scale.large_corpus [--rows 1000000] [--steps data split fit] [--memory-gib 8]

The file is made here: sentences of ten words of a made-up language, drawn by Zipf's law. The label is the side on which
most of the marked words of a sentence are. One row in ten has the other label, and one in twenty repeats another row
with other capitals and punctuation. Each step runs in a process of its own, whose private memory is limited to
--memory-gib: `hbt data FILE`, the corpus with its splits alone, and `hbt train --student ngram --no-teacher`. Prints
one line of JSON.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.studies.training_cost import cost_of
from toolkit.utils.errors import InputError
from toolkit.utils.machine import describe_machine

WORDS, MARKED = 20_000, 0.2
STEPS = {
    "data": ["-m", "hbt", "data", "FILE", "--json"],
    "split": ["-c", "import hbt; from toolkit.data.corpus import *; load_corpus(CorpusSettings(data='FILE'))"],
    "fit": ["-m", "hbt", "train", "--data", "FILE", "--student", "ngram", "--no-teacher", "--name", "large"],
}


def main() -> None:
    """Run the study and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--memory-gib", type=float, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "large.csv"
        write_corpus(file, given.rows)
        shown: dict[str, Any] = {"rows": given.rows, "bytes": file.stat().st_size}
        for step in given.steps:
            command = [sys.executable, *(word.replace("FILE", str(file)) for word in STEPS[step])]
            shown[step] = _measured(command, Path(home), given.memory_gib)
            print(f"{step}: {shown[step]}", file=sys.stderr)
    shown |= {"load_1_5_15_min": [round(load, 1) for load in os.getloadavg()], "machine": asdict(describe_machine())}
    print(json.dumps(shown))


def write_corpus(file: Path, rows: int, seed: int = 0) -> None:
    """Write a labeled file of `rows` made-up sentences."""
    with file.open("w", encoding="utf-8") as out:
        out.write("text,label\n")
        for text, label in sentences(rows, seed):
            out.write(f'"{text}",{label}\n')


def sentences(rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield texts with their labels; see the top of this file."""
    draw = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    words = list({"".join(draw.choices(syllables, k=draw.randint(1, 4))): None for _ in range(3 * WORDS)})[:WORDS]
    side = {word: draw.choice((-1, 1)) if draw.random() < MARKED else 0 for word in words}
    cumulative = [0.0]
    for rank in range(len(words)):
        cumulative.append(cumulative[-1] + 1 / (rank + 3))
    past: list[tuple[str, str]] = []
    for row in range(rows):
        if past and draw.random() < 0.05:
            text, label = draw.choice(past)
            yield f"{text.capitalize()}!", label
            continue
        chosen = draw.choices(words, cum_weights=cumulative[1:], k=10)
        balance = sum(side[word] for word in chosen) + 0.1 * (draw.random() - 0.5)
        label = "plus" if (balance > 0) != (draw.random() < 0.1) else "minus"
        text = " ".join(chosen)
        if row % 100 == 0:
            past.append((text, label))
        yield text, label


def _measured(command: list[str], home: Path, memory_gib: float) -> dict[str, Any]:
    """Return the costs of a command, see `cost_of`, or how it ended."""
    try:
        return cost_of(command, home, int(1024 * memory_gib))
    except InputError as error:
        return {"ended": str(error)[-300:]}


if __name__ == "__main__":
    main()

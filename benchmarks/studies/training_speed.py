"""How much faster is a training epoch here? `python -m benchmarks.training_speed --data FILE --model FOLDER`.

(A) the product's loop: batches of texts of like length, bfloat16 where the CPU has it, fused AdamW, denormals
flushed; against (B) the same loop as it is usually written: every text padded to the longest allowed length,
float32, plain AdamW. Same rows, same model, same number of steps, in turns (A B A B), so that a machine that
slows down slows both. Prints a table for people and ends with one line of JSON for machines.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from toolkit.config.settings import CorpusSettings, ModelSettings, TrainingSettings
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.latency.timing import fixed_order
from toolkit.modeling.encoders import build_classifier
from toolkit.training.dataset import Examples
from toolkit.training.trainer import Loop, Mechanics, fit, has_bf16
from toolkit.utils.machine import describe_machine

NAMES = {"A": "product", "B": "padded fp32"}
VALIDATION_ROWS = 8
"""The loop validates after an epoch; that is not timed, so a few rows do."""


def main() -> None:
    given = _arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    corpus = load_corpus(CorpusSettings(data=given.data, folds=2))
    texts = training_texts(corpus, given.rows)
    model = ModelSettings(model=given.model, pooling="mean", max_length=given.max_length)
    training = TrainingSettings(epochs=1, batch_size=given.batch_size, device="cpu")
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    for turn in range(2 * given.rounds):
        name = "AB"[turn % 2]
        seconds[name].append(time_epoch(name, corpus, texts, model, training))
        print(f"{name} ({NAMES[name]}): {seconds[name][-1]:.1f} s", flush=True)
    report(seconds, texts, has_bf16("cpu"))


def time_epoch(name: str, corpus: Corpus, texts: Examples, model: ModelSettings, training: TrainingSettings) -> float:
    """Seconds from the first forward pass to the end of the last step of one epoch from the same start."""
    classifier = build_classifier(model, corpus.label_names, texts.texts, seed=42)
    some = corpus.rows("validation")[:VALIDATION_ROWS]
    validation = Examples(corpus.take(some), corpus.labels[some])
    begun: list[float] = []  # of each forward pass
    ended: list[float] = []  # of each training step
    classifier.network.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
    with tempfile.TemporaryDirectory(prefix="hbt-bench-") as work:
        fit(
            classifier,
            texts,
            validation,
            training,
            seed=42,
            work=Path(work),
            loop=Loop(
                advance=lambda _: ended.append(time.perf_counter()), mechanics=mechanics(name, classifier.max_length)
            ),
        )
    return ended[-1] - begun[0]


def mechanics(name: str, max_length: int) -> Mechanics:
    """What of the loop is turned on."""
    if name == "A":
        return Mechanics()
    return Mechanics(like_lengths=False, pad_to=max_length, bf16=False, optimizer="adamw_torch", flush_denormals=False)


def training_texts(corpus: Corpus, rows: int) -> Examples:
    """The first `rows` training rows in an order that only the texts decide: short and long, of every part."""
    train = corpus.rows("train")
    chosen = train[fixed_order(corpus.take(train))[:rows]]
    return Examples(corpus.take(chosen), corpus.labels[chosen])


def report(seconds: dict[str, list[float]], texts: Examples, bf16: bool) -> None:
    """Print the table and the line of JSON."""
    from rich.console import Console
    from rich.table import Table

    machine = describe_machine()
    rows = len(texts.texts)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = middle["B"] / middle["A"]
    table = Table(
        title=f"One training epoch of {rows} rows, {torch.get_num_threads()} threads",
        caption=f"{machine.cpu}, {machine.isa}, load average {machine.load_average}, "
        f"bf16 {'used by A' if bf16 else 'not there'}; A is {ratio:.1f} × faster",
    )
    for heading in ("loop", "seconds (median)", "each", "rows/s"):
        table.add_column(heading, justify="left" if heading == "loop" else "right")
    for name, values in seconds.items():
        each = " ".join(f"{value:.1f}" for value in values)
        table.add_row(f"{name} {NAMES[name]}", f"{middle[name]:.1f}", each, f"{rows / middle[name]:.1f}")
    Console().print(table)
    record: dict[str, Any] = {
        "rows": rows,
        "product_s": seconds["A"],
        "padded_fp32_s": seconds["B"],
        "product_rows_s": rows / middle["A"],
        "padded_fp32_rows_s": rows / middle["B"],
        "ratio": ratio,
        "threads": torch.get_num_threads(),
        "bf16": bf16,
        "isa": machine.isa,
        "load_average": machine.load_average,
    }
    print(json.dumps(record))


def _arguments() -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_speed", description=summary)
    parser.add_argument("--data", required=True, help="file with labeled texts, or demo")
    parser.add_argument("--model", required=True, help="encoder: a folder, a hub id or shape:LxH")
    parser.add_argument("--rows", type=int, default=1024, help="training rows (default 1024)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts in a step (default 32)")
    parser.add_argument("--max-length", type=int, default=128, help="what B pads to, in tokens (default 128)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each loop runs (default 2: A B A B)")
    return parser.parse_args()


if __name__ == "__main__":
    main()

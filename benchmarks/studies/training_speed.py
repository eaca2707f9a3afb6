"""Training speed of the toolkit: `python -m benchmarks.studies.training_speed --data FILE --model FOLDER`.

Compares one epoch of (A) the training loop of the toolkit (batches of texts of similar length, bfloat16 on CPUs that
support it, fused AdamW, denormals flushed to zero) and (B) a plain loop (all texts padded to the maximum length,
float32, plain AdamW). Both train the same model on the same rows for the same number of steps, in turns (A B A B), so
that changes in machine speed affect both. Prints a table, then one line of JSON.
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

NAMES = {"A": "toolkit", "B": "padded fp32"}
VALIDATION_ROWS = 8
"""The loop validates after each epoch; validation is not timed, so a few rows are enough."""


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
    """Train one epoch from the same initial weights; return the seconds from first forward pass to end of last step."""
    classifier = build_classifier(model, corpus.label_names, texts.texts, seed=42)
    rows = corpus.rows("validation")[:VALIDATION_ROWS]
    validation = Examples(corpus.take(rows), corpus.labels[rows])
    started: list[float] = []  # start of each forward pass
    ended: list[float] = []  # end of each training step
    classifier.network.register_forward_pre_hook(lambda *_: started.append(time.perf_counter()))
    with tempfile.TemporaryDirectory(prefix="hbt-bench-") as work:
        fit(
            classifier,
            texts,
            validation,
            training,
            seed=42,
            work=Path(work),
            loop=Loop(advance=lambda _: ended.append(time.perf_counter()), mechanics=mechanics(name, model.max_length)),
        )
    return ended[-1] - started[0]


def mechanics(name: str, max_length: int) -> Mechanics:
    """Return the optimizations of loop A, or none of them for loop B."""
    if name == "A":
        return Mechanics()
    return Mechanics(like_lengths=False, pad_to=max_length, bf16=False, optimizer="adamw_torch", flush_denormals=False)


def training_texts(corpus: Corpus, rows: int) -> Examples:
    """Return `rows` training rows in a fixed order, a mix of lengths and of all parts of the file."""
    train = corpus.rows("train")
    chosen = train[fixed_order(corpus.take(train))[:rows]]
    return Examples(corpus.take(chosen), corpus.labels[chosen])


def report(seconds: dict[str, list[float]], texts: Examples, bf16: bool) -> None:
    """Print the table and one line of JSON."""
    from rich.console import Console
    from rich.table import Table

    machine = describe_machine()
    rows = len(texts.texts)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = median["B"] / median["A"]
    table = Table(
        title=f"One training epoch of {rows} rows, {torch.get_num_threads()} threads",
        caption=f"{machine.cpu}, {machine.isa}, load average {machine.load_average}, "
        f"bf16 {'used by A' if bf16 else 'not supported'}; A is {ratio:.1f} × faster",
    )
    for heading in ("loop", "seconds (median)", "each", "rows/s"):
        table.add_column(heading, justify="left" if heading == "loop" else "right")
    for name, values in seconds.items():
        each = " ".join(f"{value:.1f}" for value in values)
        table.add_row(f"{name} {NAMES[name]}", f"{median[name]:.1f}", each, f"{rows / median[name]:.1f}")
    Console().print(table)
    record: dict[str, Any] = {
        "rows": rows,
        "product_s": seconds["A"],
        "padded_fp32_s": seconds["B"],
        "product_rows_s": rows / median["A"],
        "padded_fp32_rows_s": rows / median["B"],
        "ratio": ratio,
        "threads": torch.get_num_threads(),
        "bf16": bf16,
        "isa": machine.isa,
        "load_average": machine.load_average,
    }
    print(json.dumps(record))


def _arguments() -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.training_speed", description=summary)
    parser.add_argument("--data", required=True, help="file with labeled texts, or demo")
    parser.add_argument("--model", required=True, help="encoder: a folder, a hub id or shape:LxH")
    parser.add_argument("--rows", type=int, default=1024, help="training rows (default 1024)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts per step (default 32)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens that B pads to (default 128)")
    parser.add_argument("--threads", type=int, help="PyTorch threads (default: chosen by PyTorch)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each loop (default 2: A B A B)")
    return parser.parse_args()


if __name__ == "__main__":
    main()

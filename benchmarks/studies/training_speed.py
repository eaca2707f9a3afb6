"""Training speed of the toolkit: `python -m benchmarks.studies.training_speed --data FILE --model FOLDER`.

Compares one epoch of (A) the training loop of the toolkit (batches of texts of similar length, bfloat16 on CPUs that
support it, fused AdamW, denormals flushed to zero), (B) the same loop without these (all texts padded to the maximum
length, float32, plain AdamW) and (C) the loop that tutorials show: AutoModelForSequenceClassification, a tokenizer with
padding="max_length", and the Trainer of transformers with its default arguments. All train the same encoder on the same
rows for the same number of steps, in turns (A B C A B C), so that changes in machine speed affect all. Prints a table,
then one line of JSON.
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

NAMES = {"A": "toolkit", "B": "padded fp32", "C": "Trainer of a tutorial"}
KEYS = {"A": "product", "B": "padded_fp32", "C": "plain_trainer"}
"""Names of the loops in the line of JSON."""
VALIDATION_ROWS = 8
"""The loop validates after each epoch; validation is not timed, so a few rows are enough."""


def main() -> None:
    given = _arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    corpus = load_corpus(CorpusSettings(data=given.data, folds=2))
    texts = training_texts(corpus, given.rows)
    model = ModelSettings(model=given.model, pooling="mean", max_length=given.max_length)
    training = TrainingSettings(epochs=given.epochs, batch_size=given.batch_size, device="cpu")
    seconds: dict[str, list[float]] = {name: [] for name in given.loops}
    for name in given.loops * given.rounds:
        if name == "C":
            seconds[name].append(time_plain_trainer(texts, model, training, len(corpus.label_names)))
        else:
            seconds[name].append(time_epochs(name, corpus, texts, model, training))
        print(f"{name} ({NAMES[name]}): {seconds[name][-1]:.1f} s", flush=True)
    report(seconds, texts, given.epochs, has_bf16("cpu"))


def time_epochs(name: str, corpus: Corpus, texts: Examples, model: ModelSettings, training: TrainingSettings) -> float:
    """Train from the same initial weights; return the seconds from the first forward pass to the end of the last step.

    name: A or B.
    """
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


def time_plain_trainer(texts: Examples, model: ModelSettings, training: TrainingSettings, labels: int) -> float:
    """Train as the tutorials of transformers do; return the seconds of `Trainer.train`."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    torch.manual_seed(42)
    tokenizer = AutoTokenizer.from_pretrained(model.model, trust_remote_code=False)
    network = AutoModelForSequenceClassification.from_pretrained(
        model.model, num_labels=labels, trust_remote_code=False
    )
    found = tokenizer(texts.texts, padding="max_length", truncation=True, max_length=model.max_length)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": int(label)}
        for ids, mask, label in zip(found["input_ids"], found["attention_mask"], texts.labels, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="hbt-bench-") as work:
        arguments = TrainingArguments(
            output_dir=work,
            num_train_epochs=training.epochs,
            per_device_train_batch_size=training.batch_size,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer: Any = Trainer(model=network, args=arguments, train_dataset=rows)
        before = time.perf_counter()
        trainer.train()
        return time.perf_counter() - before


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


def report(seconds: dict[str, list[float]], texts: Examples, epochs: int, bf16: bool) -> None:
    """Print the table and one line of JSON."""
    from rich.console import Console
    from rich.table import Table

    machine = describe_machine()
    rows = len(texts.texts)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: median[name] / median["A"] for name in median if "A" in median and name != "A"}
    compared = ", ".join(f"{ratio:.1f} × faster than {name}" for name, ratio in ratios.items())
    table = Table(
        title=f"{epochs} training epoch{'s' * (epochs > 1)} of {rows} rows, {torch.get_num_threads()} threads",
        caption=f"{machine.cpu}, {machine.isa}, load average {machine.load_average}, "
        f"bf16 {'used by A' if bf16 else 'not supported'}" + (f"; A is {compared}" if compared else ""),
    )
    for heading in ("loop", "seconds (median)", "each", "rows/s"):
        table.add_column(heading, justify="left" if heading == "loop" else "right")
    for name, values in seconds.items():
        each = " ".join(f"{value:.1f}" for value in values)
        table.add_row(f"{name} {NAMES[name]}", f"{median[name]:.1f}", each, f"{epochs * rows / median[name]:.1f}")
    Console().print(table)
    record: dict[str, Any] = {"rows": rows, "epochs": epochs}
    record |= {f"{KEYS[name]}_s": values for name, values in seconds.items()}
    record |= {f"{KEYS[name]}_rows_s": epochs * rows / value for name, value in median.items()}
    record |= {"ratio": ratios.get("B"), "ratio_plain_trainer": ratios.get("C")}
    record |= {"threads": torch.get_num_threads(), "bf16": bf16, "cpu": machine.cpu, "isa": machine.isa}
    print(json.dumps(record | {"load_average": machine.load_average}))


def _arguments() -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.training_speed", description=summary)
    parser.add_argument("--data", required=True, help="file with labeled texts, or demo")
    parser.add_argument("--model", required=True, help="encoder: a folder, a hub id or shape:LxH")
    parser.add_argument("--rows", type=int, default=1024, help="training rows (default 1024)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts per step (default 32)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens that B pads to (default 128)")
    parser.add_argument("--threads", type=int, help="PyTorch threads (default: chosen by PyTorch)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each loop (default 2: A B C A B C)")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of each run (default 1)")
    parser.add_argument("--loops", default="ABC", help="loops to time; C needs a folder or hub id (default ABC)")
    given = parser.parse_args()
    given.loops = [name for name in NAMES if name in given.loops and not (name == "C" and ":" in given.model)]
    return given


if __name__ == "__main__":
    main()

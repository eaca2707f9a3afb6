"""The command line of how_to_load.py, the same for every runtime: `python how_to_load.py --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporters.loaders.command.bench import bench
from exporters.loaders.command.label_file import is_blank, label_file
from exporters.loaders.command.model import UNSURE, Model, answer_below, printable
from exporters.loaders.command.self_test import self_test


def run(load: Callable[..., Model], folder: Path) -> None:
    """Run the command line; an error is one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a pipe on Windows has another encoding
    try:
        _run(_arguments(), load, folder)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(130)  # a normal exit would write to the closed pipe again
    except Exception as error:
        install = "; pip install -r requirements.txt" if isinstance(error, ImportError) else ""
        print(printable(" ".join(str(error).split()) + install), file=sys.stderr)
        sys.exit(2)


def _run(given: argparse.Namespace, load: Callable[..., Model], folder: Path) -> None:
    if given.bench is not None:
        file = Path(given.bench) if given.bench else None
        print(
            json.dumps(bench(load, folder, file, given.text_column, given.threads or 1), indent=2, ensure_ascii=False)
        )
    elif given.self_test:
        self_test(load(threads=given.threads), folder)
    elif given.file:
        model, below = load(threads=given.threads or 1), answer_below(folder)
        count, blank = label_file(model, given.file, given.output, given.text_column, below)
        print(f"{count} rows labeled: {printable(str(given.output))}")
        if blank:
            print(f"{blank} of {count} rows have no text; their label is left empty", file=sys.stderr)
    elif given.stdin:
        model, below = load(threads=given.threads), answer_below(folder)
        for number, line in enumerate(sys.stdin.buffer, start=1):
            try:
                text = line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                raise ValueError(f"line {number} of the input is not UTF-8") from None
            print_labels(model, [text], below)
    else:
        print_labels(load(threads=given.threads), given.texts, answer_below(folder))


def print_labels(model: Model, texts: list[str], below: float | None) -> None:
    """Print label, probability and text of each: no label of a blank text, and UNSURE `below` a probability."""
    for text, (label, score) in zip(texts, model.predict(texts)):
        answer = label if below is None or score >= below else UNSURE
        shown = "\t" if is_blank(text) else f"{printable(answer)}\t{score:.4f}"
        print(f"{shown}\t{printable(text)}", flush=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ValueError(f"{message}; see --help (and put -- before texts that start with a dash)")


def _arguments() -> argparse.Namespace:
    """Return the options of the command line. Raises: ValueError if they do not fit together."""
    parser = _Parser(prog="how_to_load.py", description="Classify texts with the model in this folder.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="text to label; - reads one text a line from stdin")
    parser.add_argument("--file", type=Path, metavar="IN", help="CSV (, ; tab or |) or TSV file to label, in UTF-8")
    parser.add_argument("--output", type=Path, metavar="OUT", help="labeled copy of --file to write")
    parser.add_argument("--text-column", metavar="NAME", help="column with the texts (default: found by name)")
    parser.add_argument("--self-test", action="store_true", help="check files, token ids, labels and scores")
    parser.add_argument(
        "--bench",
        nargs="?",
        const="",
        metavar="FILE",
        help="print latency, cold start, throughput and memory as JSON; on the texts of a CSV or TSV file, or on the "
        "golden texts of the package",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the model (default: 1 for files)")
    words = [*sys.argv[1:], "--"]
    end = words.index("--")
    given = parser.parse_intermixed_args(words[:end])  # of Python 3.9 to 3.13, it takes no text after --
    given.stdin = given.texts == ["-"]
    given.texts += words[end + 1 : -1]
    modes = [bool(given.texts), given.file is not None, given.self_test, given.bench is not None]
    if modes.count(True) != 1:
        parser.error("give texts, or one of --file, --self-test and --bench")
    if (given.file is None) != (given.output is None):
        parser.error("--file and --output belong together")
    if given.threads is not None and not 1 <= given.threads <= 1024:
        parser.error(f"--threads {given.threads} is outside 1 to 1024")
    for number, text in enumerate(given.texts, start=1):
        if is_blank(text):
            raise ValueError(f"text {number} is blank, so no label fits it; leave it out or give a text")
    return given

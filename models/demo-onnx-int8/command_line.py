"""The command line of how_to_load.py, the same for every runtime: `python how_to_load.py --help`."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import sys
import time
import unicodedata
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO


class Model(Protocol):
    """The model that `load` of how_to_load.py returns."""

    encode: Callable[[Sequence[str]], Sequence[Any]]
    """Texts -> an array of token ids for each."""

    def predict(self, texts: Sequence[str], batch_size: int = 1) -> list[tuple[str, float]]:
        """Return label and probability of each text."""
        ...

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> Any:
        """Return an array of probabilities (texts, labels)."""
        ...


UNSURE = "unsure"
"""The answer to a text whose label has a lower probability than config.json asks for."""


def answer_below(folder: Path) -> float | None:
    """Return the probability below which the package in `folder` answers UNSURE; None if it always answers.

    Raises: ValueError if config.json does not state a probability.
    """
    found = json.loads((folder / "config.json").read_text("utf-8")).get("abstain")
    if found is None:
        return None
    below = found.get("below") if isinstance(found, dict) else None
    if not isinstance(below, (int, float)) or not 0 <= below <= 1:
        raise ValueError("config.json: abstain must have a probability named below")
    return float(below)


def largest_difference(scores: Iterable[Iterable[float]], others: Iterable[Iterable[float]]) -> float:
    """Return the largest difference between scores (texts, labels) and `others` of the same shape."""
    return max(abs(float(a) - float(b)) for row, other in zip(scores, others) for a, b in zip(row, other))


def printable(text: str) -> str:
    """Return `text` with control, format and escape characters, which could change a terminal, as escapes."""
    controls = [c for c in set(text) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    hidden = {
        ord(c): ascii(c)[1:-1] for c in controls if c not in "\t\u200c\u200d"
    }  # not tabs and the joiners of words
    return text.translate({code: f"\\x{code:02x}" if code < 0x100 else escape for code, escape in hidden.items()})


LABEL, PROBABILITY, ANSWER = "predicted_label", "probability", "answer"
SUFFIXES = (".csv", ".tsv")
SEPARATORS, SNIFFED = (",", ";", "\t", "|"), 100
"""Separators of CSV files, and rows in which the one of a file is found. The same as those of hbt."""
TEXT_COLUMNS = (
    *("text", "comments", "comment", "sentence", "content", "tweet", "review", "document", "message", "post", "body"),
    *("texts", "sentences", "reviews", "tweets", "messages"),
    *("kommentar", "kommentare", "nachricht", "beitrag", "bewertung"),  # German
    *("texte", "commentaire", "commentaires", "texto", "comentario", "comentário", "testo", "commento", "tekst"),
    *("metin", "yorum", "teks", "komentar", "текст", "комментарий"),
    *("মন্তব্য", "লেখা", "টেক্সট", "বাক্য", "टिप्पणी", "पाठ", "نص", "تعليق", "متن", "文本", "评论", "テキスト", "텍스트"),
)
CHUNK, BATCH = 256, 32
"""Rows that are labeled and written together, and texts that the model scores at a time."""
SAME_SCORE = 1e-5
# White space and what the normalizer of every package removes.
BLANK = re.compile("[\\s\u0000-\u0008\u000e-\u001f\u007f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*")
FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def label_file(
    model: Model, source: Path, out: Path, text_column: str | None, below: float | None = None
) -> tuple[int, int]:
    """Write `source` with added columns to `out`, CHUNK rows at a time; return the rows, and those without text.

    A CSV file from a CSV file has its separator. The columns are empty for a row without text. A cell that a
    spreadsheet would run as a formula gets a leading apostrophe.

    below: of a package that abstains, the probability below which the third column, ANSWER, is UNSURE.
    Raises: ValueError or OSError if a file cannot be read or written; then `out` is not written.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--output {out}: give a name that ends in {' or '.join(SUFFIXES)}")
    if out.exists():
        raise ValueError(f"{out}: exists; give another --output")
    rows = read_rows(source)
    header = next(rows)
    added = added_columns(below)
    taken = [name for name in added if name in header]
    if taken:
        raise ValueError(f"{source}: already has a column {taken[0]!r}; rename it")
    column = find_column(source, header, text_column)
    alike = out.suffix.lower() == source.suffix.lower()
    separator = separator_of(source) if alike else {".csv": ",", ".tsv": "\t"}[out.suffix.lower()]
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    count = blank = batch_size = 0
    try:
        with partial.open("w", newline="", encoding=_encoding_of(source)) as stream:
            write_rows(stream, separator, [[*header, *added]])
            for chunk in iter(lambda: list(islice(rows, CHUNK)), []):
                texts = [row[column] for row in chunk if not is_blank(row[column])]
                batch_size = batch_size or safe_batch_size(model, texts[:BATCH])
                found = iter(model.predict(texts, batch_size) if texts else [])
                empty = [""] * len(added)
                answers = [empty if is_blank(row[column]) else _cells(*next(found), below) for row in chunk]
                write_rows(stream, separator, [a + b for a, b in zip(chunk, answers)])
                count, blank = count + len(chunk), blank + len(chunk) - len(texts)
        partial.replace(out)
    finally:
        if partial.exists():
            partial.unlink()
    return count, blank


def _encoding_of(file: Path) -> str:
    """Return UTF-8, with a mark if the file has one: without it, Excel reads the letters wrongly."""
    with file.open("rb") as stream:
        return "utf-8-sig" if stream.read(len(BOM_UTF8)) == BOM_UTF8 else "utf-8"


def added_columns(below: float | None) -> list[str]:
    """Return the names of the columns that a labeled file gets."""
    return [LABEL, PROBABILITY] if below is None else [LABEL, PROBABILITY, ANSWER]


def _cells(label: str, probability: float, below: float | None) -> list[Any]:
    cells = [label, round(probability, 6)]
    return cells if below is None else [*cells, label if probability >= below else UNSURE]


def read_rows(file: Path) -> Iterator[list[str]]:
    """Yield the header and then every row of a CSV or TSV file.

    Raises: ValueError that names the line if the file is not UTF-8, malformed, or without rows.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{file}: give a file that ends in {' or '.join(SUFFIXES)}")
    csv.field_size_limit(10_000_000)
    refuse_other_encodings(file)
    separator = separator_of(file)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=separator, strict=True)
        width = 0
        try:
            for row in filter(None, reader):
                width = width or len(row)
                if len(row) != width:
                    raise ValueError(
                        f"{file}: line {reader.line_num} has {len(row)} fields and the header {width}, separated by "
                        f"{separator!r}; quote texts that contain the separator"
                    )
                yield row
        except csv.Error as error:
            raise ValueError(f"{file}: line {reader.line_num} is malformed ({error}); fix its quotes") from None
    if reader.line_num < 2:
        raise ValueError(f"{file}: no rows; give a file with a header and texts")


def refuse_other_encodings(file: Path) -> None:
    """Raise ValueError that names the first line that is not UTF-8; the Latin letters of UTF-16 have zeros."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
                fits = number > 1 or b"\0" not in line
            except UnicodeDecodeError:
                fits = False
            if not fits:
                fix = "save the file as UTF-8 (hbt predict reads other encodings)"
                raise ValueError(f"{file}: line {number} is not UTF-8; {fix}")


def separator_of(file: Path) -> str:
    """Return the first of SEPARATORS that gives all of the first rows as many fields as the header, and not only one.

    If there is none, it is a comma. The separator of a TSV file is a tab.
    """
    if file.suffix.lower() == ".tsv":
        return "\t"
    for separator in SEPARATORS:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            try:
                rows = list(filter(None, islice(csv.reader(stream, delimiter=separator, strict=True), SNIFFED)))
            except csv.Error:
                continue
        if rows and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return separator
    return SEPARATORS[0]


def find_column(file: Path, header: Sequence[str], name: str | None) -> int:
    """Return the position of the column `name` or, if None, of the first of TEXT_COLUMNS. Raises: ValueError."""
    if name is not None:
        if name not in header:
            raise ValueError(f"{file}: no column {name!r} (--text-column); the columns are {', '.join(header)}")
        return header.index(name)
    lower = [each.strip().casefold() for each in header]
    found = [lower.index(each) for each in TEXT_COLUMNS if each in lower]
    if not found:
        raise ValueError(f"{file}: no text column among {', '.join(header)}; name it with --text-column")
    return found[0]


def write_rows(stream: TextIO, separator: str, rows: Sequence[Sequence[Any]]) -> None:
    """Write rows without cells that a spreadsheet would run. The plain writer does not quote a carriage return."""
    plain = csv.writer(stream, delimiter=separator, lineterminator="\n")
    quoted = csv.writer(stream, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [inert(cell) for cell in row]
        (quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain).writerow(cells)


def inert(cell: Any) -> Any:
    """Return `cell` so that no spreadsheet runs it as a formula, as OWASP recommends: with a leading apostrophe.

    A number such as -5 is no formula and stays as it is.
    """
    if isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def is_blank(text: str) -> bool:
    """Return whether nothing is left of `text` after normalization."""
    return BLANK.fullmatch(text) is not None


def safe_batch_size(model: Any, texts: list[str]) -> int:
    """Return BATCH if `texts` get the scores in a batch that each gets by itself, else 1.

    Batches are several times faster, but the scales of dynamic int8 depend on what else is in the batch.
    """
    if not texts:
        return 1
    try:
        gap = largest_difference(model.predict_proba(texts, len(texts)), model.predict_proba(texts))
    except ValueError:  # scores that are not finite: `predict` reports them
        return 1
    return BATCH if gap <= SAME_SCORE else 1


FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16", "asimd", "asimddp", "i8mm")
"""Processor flags that change the speed and the rounding of int8, as Linux spells them."""


def describe_machine() -> dict[str, Any]:
    """Return processor, memory and system as JSON values; what the system does not tell is "unknown" or None."""
    import platform

    name, flags = _processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    return {
        "cpu": name,
        "architecture": platform.machine() or "unknown",
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": None if memory is None else round(memory, 1),
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def checked_versions(manifest: dict[str, Any]) -> dict[str, str]:
    """Return the versions that the package was checked with, by distribution; manifests before 0.2 have only one."""
    runtime = manifest["runtime"]
    return runtime.get("versions", {runtime["name"]: runtime["version"]})


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution, "missing" without one."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return manifest.json, whose files the loader has checked."""
    return json.loads((folder / "manifest.json").read_text("utf-8"))


def _processor() -> tuple[str, list[str]]:
    """Return the name of the processor, or of a single-board computer, and those of FLAGS that it has."""
    import platform

    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip().lower(), value.strip())
        board = Path("/proc/device-tree/model").read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        board = ""
    there = (fields.get("flags") or fields.get("features") or "").split()
    name = fields.get("model name") or board or platform.processor() or "unknown"
    return name, [flag for flag in FLAGS if flag in there]


GOLDEN_TOLERANCE = 5e-3
"""Largest accepted difference of golden scores, also stated in the manifest. Processors add in different orders, which
moves some activations to the next of their 255 codes."""


def golden_differences(model: Model, golden: list[dict[str, Any]]) -> tuple[int, int, float]:
    """Return the golden texts with other token ids, those with another label, and the largest score difference.

    Without ids in the manifest, as in older packages, no text has other ids.
    """
    ids = labels = 0
    gap = 0.0
    for entry in golden:
        texts = [entry["text"]]
        found = [int(i) for i in model.encode(texts)[0]]
        ids += found != entry.get("ids", found)
        labels += model.predict(texts)[0][0] != entry["label"]
        gap = max(gap, largest_difference(model.predict_proba(texts), [entry["scores"]]))
    return ids, labels, gap


def self_test(model: Model, folder: Path) -> None:
    """Print what is the same here as where the package was checked, and what is not.

    Raises: ValueError if token ids, labels or scores differ. Files were checked when the model was loaded.
    """
    manifest = read_manifest(folder)
    count, checked, machine = len(manifest["golden"]), checked_versions(manifest), describe_machine()
    ids, labels, gap = golden_differences(model, manifest["golden"])
    versions = [f"{name} {own} (checked: {checked[name]})" for name, own in installed_versions(checked).items()]
    checked_on = manifest["checked_on"]
    checked_on = [checked_on] if isinstance(checked_on, str) else checked_on  # of older packages, one processor
    flags = " ".join(machine["flags"]) or "no known flags"
    for topic, line in (
        ("files", f"{len(manifest['files'])} as in manifest.json"),
        ("token ids", f"{count - ids} of {count} golden texts as shipped"),
        ("labels", f"{count - labels} of {count} golden texts as shipped"),
        ("scores", f"largest difference {gap:.1e} (accepted: {GOLDEN_TOLERANCE})"),
        ("versions", ", ".join([*versions, f"Python {machine['python']}"])),
        ("processor", f"{machine['cpu']}, {machine['architecture']}, {flags} (checked: {', '.join(checked_on)})"),
    ):
        print(f"{topic:10} {printable(line)}")
    if ids or labels or not gap <= GOLDEN_TOLERANCE:
        raise ValueError("self-test failed: the model answers otherwise than where it was checked")
    print("self-test passed")


SAMPLES_NEEDED = {50: 20, 90: 64, 99: 662}
"""Minimum number of samples for each percentile. Of 64 samples, the second largest is above the 90th percentile with
99 % confidence, and of 662 above the 99th (early stopping of MLPerf inference)."""


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """Return `p50`, `p90` and `p99`, each only if there are enough samples for it (SAMPLES_NEEDED)."""
    import statistics  # here, since it would lengthen every cold start

    known = [q for q, needed in SAMPLES_NEEDED.items() if len(samples) >= needed]
    cuts = statistics.quantiles(samples, n=100, method="inclusive") if known else []
    return {f"p{q}": cuts[q - 1] for q in known}


def peak_rss_mib() -> float | None:
    """Return the peak resident memory of this process; None on Windows without psutil.

    On Linux, it is VmHWM, because getrusage includes the memory of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        try:
            import psutil
        except ImportError:
            return None
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


STARTS, WARMUP, SAMPLES, BUDGET_S = 3, 20, 1200, 60.0
"""Cold starts, untimed texts, timed texts at most, and seconds after which no further text is timed."""


def bench(
    load: Callable[..., Model], folder: Path, file: Path | None, text_column: str | None, threads: int
) -> dict[str, Any]:
    """Return the measurements as JSON values; `hbt bench PACKAGE --from` adds them to its table.

    Texts come from a CSV or TSV file, or are the golden texts of the package, repeated.
    Raises: ValueError if the file has no texts.
    """
    import statistics

    machine = describe_machine()
    load_average = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # of the tokenizer
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    manifest = read_manifest(folder)
    texts = [entry["text"] for entry in manifest["golden"]] if file is None else _texts(file, text_column)
    distinct = len(texts)
    if file is None:
        texts = (texts * SAMPLES)[:SAMPLES]
    cold_start_ms = statistics.median(_cold_start_ms(folder, texts[0], threads) for _ in range(STARTS))
    model = load(threads=threads)
    samples = _latencies(model, texts)
    quantiles = percentiles(samples)
    measurement = {
        "threads": threads,
        "samples": len(samples),
        **{f"p{q}_ms": quantiles.get(f"p{q}") for q in (50, 90, 99)},
        "mean_ms": statistics.mean(samples) if quantiles else None,
        "max_ms": max(samples) if quantiles else None,
        **{f"throughput_b{size}_rows_s": _rows_per_second(model, texts, size) for size in (8, 32)},
        "cold_start_ms": cold_start_ms,
        "peak_rss_mib": peak_rss_mib(),
    }
    ids, labels, gap = golden_differences(model, manifest["golden"])
    return {
        "schema": "hbt-device-bench-1",
        "package": {
            "name": folder.name,
            "target": manifest["target"],
            "manifest_sha256": hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest(),
            "size_bytes": sum(entry["size_bytes"] for entry in manifest["files"].values()),
        },
        "machine": {**machine, "load_average": load_average},
        "versions": installed_versions(checked_versions(manifest)),
        "texts": {
            "source": "golden texts, repeated" if file is None else file.name,
            "distinct": distinct,
            "mean_characters": round(statistics.mean(map(len, texts)), 1),
        },
        "self_test": {
            "passed": not ids and not labels and gap <= GOLDEN_TOLERANCE,
            "other_ids": ids,
            "other_labels": labels,
            "largest_score_difference": gap,
        },
        "measurement": measurement,
    }


def _texts(file: Path, text_column: str | None) -> list[str]:
    """Return the texts of a file in an order that depends only on the texts."""
    rows = read_rows(file)
    column = find_column(file, next(rows), text_column)
    texts = [row[column] for row in rows if not is_blank(row[column])]
    if not texts:
        raise ValueError(f"{file}: no texts to measure on")
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())


def _cold_start_ms(folder: Path, text: str, threads: int) -> float:
    """Return the milliseconds from the start of a process to its first label."""
    import subprocess

    line = " ".join(text.split()).encode() + b"\n"
    command = [sys.executable, str(folder / "how_to_load.py"), "--threads", str(threads), "-"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        answered = process.stdout.readline()
        elapsed = time.perf_counter() - start
        process.stdin.close()
    if not answered:
        raise ValueError("a fresh process does not answer")
    return 1000 * elapsed


def _latencies(model: Model, texts: Sequence[str]) -> list[float]:
    """Return milliseconds of single texts, each in a call of its own."""
    for text in texts[-WARMUP:]:
        model.predict([text])
    samples = []
    stop = time.perf_counter() + BUDGET_S
    for text in texts[:SAMPLES]:
        before = time.perf_counter()
        model.predict([text])
        samples.append(1000 * (time.perf_counter() - before))
        if time.perf_counter() > stop:
            break
    return samples


def _rows_per_second(model: Model, texts: Sequence[str], size: int) -> float | None:
    """Return rows per second over calls with `size` texts; None for fewer texts."""
    rows = min(len(texts), 1024) // size * size
    if rows == 0:
        return None
    model.predict(texts[:size])
    start, done = time.perf_counter(), 0
    while done < rows and time.perf_counter() - start < BUDGET_S / 3:
        model.predict(texts[done : done + size])
        done += size
    return done / (time.perf_counter() - start)


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

"""Measure the model on this machine: cold start, latency, throughput and memory."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exporters.loaders.command.label_file import find_column, is_blank, read_rows
from exporters.loaders.command.machine import checked_versions, describe_machine, installed_versions, read_manifest
from exporters.loaders.command.model import Model
from exporters.loaders.command.self_test import GOLDEN_TOLERANCE, golden_differences
from exporters.loaders.command.timing import peak_rss_mib, percentiles

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

"""The columns of the tables of `hbt bench`, by scenario: heading to field of a `Row`, and format."""

from toolkit.latency.scenarios import OFFLINE, SERVER, SINGLE_STREAM

Columns = dict[str, tuple[str, str]]

TITLES = {
    SINGLE_STREAM: "end-to-end latency (tokenization included)",
    OFFLINE: "all texts at once (tokenization included)",
    SERVER: "highest rate of random arrivals that holds the bound of p99",
}
_COLD = (
    "Cold start: from process start to the first label; start is that of Python and of the measuring code. Memory: of "
    "the process, and beyond that of a Python that does nothing."
)
NOTES = {
    SINGLE_STREAM: f"{_COLD} tokenizer: mean time for the token ids of a text, where the model makes them apart.",
    OFFLINE: f"{_COLD} batch: the fastest size; –: the model decides itself.",
    SERVER: (
        f"{_COLD} Arrivals are Poisson; one process labels one text at a time, and latency counts from the scheduled "
        "arrival. The latencies are those at the highest rate."
    ),
}
_QUALITY: Columns = {
    "macro-F1": ("macro_f1", "{:.4f}"),
    "Δ points": ("macro_f1_difference_points", "{:+.2f}"),
}
_SIZE: Columns = {"size MiB": ("size_mib", "{:,.1f}"), "smaller": ("size_ratio", "{:.1f} ×")}
_FASTER: Columns = {"faster": ("speedup", "{:.1f} ×")}
_INTERVAL: Columns = {"faster, from": ("speedup_low", "{:.1f} ×"), "to": ("speedup_high", "{:.1f} ×")}
_TAIL: Columns = {
    "p90 ms": ("p90_ms", "{:.3g}"),
    "at most": ("p90_bound_ms", "{:.3g}"),
    "p99 ms": ("p99_ms", "{:.3g}"),
    "at most ": ("p99_bound_ms", "{:.3g}"),
    "max ms": ("max_ms", "{:.3g}"),
}
_COLD_START: Columns = {
    "cold start ms": ("cold_start_ms", "{:,.0f}"),
    "start": ("start_ms", "{:,.0f}"),
    "imports": ("import_ms", "{:,.0f}"),
    "load": ("load_ms", "{:,.0f}"),
    "first label": ("first_label_ms", "{:,.1f}"),
}
_MEMORY: Columns = {
    "memory MiB": ("peak_rss_mib", "{:,.0f}"),
    "beyond Python": ("peak_over_python_mib", "{:,.0f}"),
    "at first label": ("rss_over_python_mib", "{:,.0f}"),
    "energy mJ/text": ("energy_mj", "{:,.3g}"),
}
_PARTS: Columns = {
    "embedding MiB": ("embedding_mib", "{:,.1f}"),
    "encoder": ("encoder_mib", "{:,.1f}"),
    "tokenizer": ("tokenizer_mib", "{:,.1f}"),
    "runtime": ("runtime_mib", "{:,.1f}"),
}
_THROUGHPUT: Columns = {
    "tokenizer ms": ("encode_ms", "{:.3g}"),
    "rows/s b8": ("throughput_b8_rows_s", "{:,.0f}"),
    "rows/s b32": ("throughput_b32_rows_s", "{:,.0f}"),
}
_FIRST: dict[str, Columns] = {
    SINGLE_STREAM: {
        **_QUALITY,
        "mean ms": ("mean_ms", "{:.3g}"),
        "p50 ms": ("p50_ms", "{:.3g}"),
        "p99 ms": ("p99_ms", "{:.3g}"),
        **_FASTER,
        **_SIZE,
    },
    OFFLINE: {
        **_QUALITY,
        "texts/s": ("rate_texts_s", "{:,.0f}"),
        "batch": ("batch", "{:d}"),
        **_FASTER,
        **_INTERVAL,
    },
    SERVER: {
        **_QUALITY,
        "texts/s": ("rate_texts_s", "{:,.0f}"),
        "p99 bound": ("p99_limit_ms", "{:g} ms"),
        **_FASTER,
        **_INTERVAL,
    },
}
_SECOND: dict[str, tuple[Columns, ...]] = {
    SINGLE_STREAM: (_INTERVAL | _TAIL, _THROUGHPUT),
    OFFLINE: (_SIZE,),
    SERVER: ({"p50 ms": ("p50_ms", "{:.3g}"), **_TAIL}, _SIZE),
}
FULL_HEADINGS = {
    "p90_bound_ms": "p90 at most",
    "p99_bound_ms": "p99 at most",
    "start_ms": "start ms",
    "import_ms": "imports ms",
    "load_ms": "load ms",
    "first_label_ms": "first label ms",
    "peak_over_python_mib": "memory beyond Python",
    "rss_over_python_mib": "memory at first label",
    "encoder_mib": "encoder MiB",
    "tokenizer_mib": "tokenizer MiB",
    "runtime_mib": "runtime MiB",
}
"""Headings for one table that has all columns."""


def tables_of(scenario: str) -> tuple[Columns, ...]:
    """Return the tables of a scenario, each to be at most 100 columns wide."""
    return (_FIRST[scenario], *_SECOND[scenario], _COLD_START, _MEMORY, _PARTS)

"""Print a data profile: the output of `hbt data FILE`."""

from typing import TYPE_CHECKING

from toolkit.data.profile import DataProfile, Lengths

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BAR = 30  # length of the longest bar in characters
LABELS = 20  # maximum number of labels with a bar


def render(profile: DataProfile, console: "Console | None" = None) -> None:
    """Print `profile`, with colors if the output is a terminal."""
    from rich.console import Console
    from rich.text import Text

    out = console or Console(highlight=False)
    block = "#" if out.options.ascii_only else "█"
    out.print(Text(profile.source, style="bold"))
    out.print(_facts(profile))
    out.print()
    if profile.labels:
        shown = dict(list(profile.labels.items())[:LABELS])
        out.print(_bars(f"Labels ({profile.label_column})", shown, profile.rows, block))
        if profile.distinct_labels > LABELS:
            out.print(f"and {profile.distinct_labels - LABELS} more labels")
        out.print()
    for name, lengths in (("Words", profile.words), ("Tokens", profile.tokens)):
        if lengths is not None:
            out.print(_bars(f"{name} per text", lengths.histogram, profile.rows, block))
            out.print(_summary(lengths))
            out.print()
    if profile.cut_rows is not None:
        share = _share(profile.cut_rows, profile.rows)
        out.print(f"{profile.cut_rows:,} rows ({share}) are longer than {profile.max_length:,} tokens; a run cuts them")
        out.print("(--max-length; an ngram student reads texts of any length)")
        out.print()
    if profile.splits is not None:
        out.print(_splits(profile.splits))


def _facts(profile: DataProfile) -> "Table":
    scripts = sorted(profile.script_shares.items(), key=lambda item: -item[1])
    leaks, test = profile.random_split_leaks, profile.random_split_test_rows
    normalized, emoji = profile.normalized_rows, profile.emoji_rows
    lines = {
        "rows": f"{profile.rows:,}",
        "without text": f"{profile.empty_rows:,}",
        "without label": f"{profile.missing_labels:,}",
        "different labels": f"{profile.distinct_labels:,}",
        "duplicates": (
            f"{profile.duplicate_rows:,} rows in {profile.duplicate_groups:,} groups, "
            f"{profile.conflicting_groups:,} of them with conflicting labels"
        ),
        "a random split would leak": (
            f"{leaks:,.1f} of {test:,} test rows ({_share(leaks, test)}) would have a duplicate in training; "
            "a run keeps duplicates in one split"
        ),
        "changed by normalization": f"{normalized:,} rows ({_share(normalized, profile.rows)})",
        "with emoji": f"{emoji:,} rows ({_share(emoji, profile.rows)})",
        "letters": ", ".join(f"{script} {share:.1%}" for script, share in scripts if share > 0) or "none",
    }
    if profile.left_out_rows:
        lines["excluded from training"] = f"{profile.left_out_rows:,} rows"
    table = _grid()
    for name, value in lines.items():
        table.add_row(name, value)
    return table


def _bars(title: str, counts: dict[str, int], rows: int, block: str) -> "Table":
    """Return a table with a bar for each count; a count too small for a block has a thin line."""
    from rich.text import Text

    table = _grid(title)
    table.columns[0].justify = "right"
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    longest = max([*counts.values(), 1])
    thin = "|" if block == "#" else "▏"
    for name, count in counts.items():
        bar = Text(block * round(BAR * count / longest) or thin * (count > 0), style="cyan")
        table.add_row(Text(name), bar, f"{count:,}", _share(count, rows))  # Text: a label may contain [markup]
    return table


def _splits(splits: dict[str, dict[str, int]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Splits of a run", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    for label in next(iter(splits.values())):
        table.add_row(Text(label), *(f"{counts[label]:,}" for counts in splits.values()))
    table.add_row("all", *(f"{sum(counts.values()):,}" for counts in splits.values()))
    return table


def _summary(lengths: Lengths) -> str:
    return f"median {lengths.median:,}   p95 {lengths.p95:,}   p99 {lengths.p99:,}   longest {lengths.max:,}"


def _grid(title: str | None = None) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title and Text(title), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", overflow="fold")
    table.add_column(overflow="fold")
    return table


def _share(part: float, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"

"""Tables on narrow terminals, and progress without a terminal."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from toolkit.utils import console

CANDIDATES = ("static, smoothed, U8S8, 7-bit weights", "dynamic, U8S8, per-tensor weights, 7-bit weights")
FIGURES = {"Macro-F1": "0.8996", "Δ points": "-0.00", "Same label": "100.00 %", "Flips in batches": "0", "p50 ms": "1"}
TABLES: dict[str, tuple[list[dict[str, str]], tuple[str, ...]]] = {
    "candidates": (
        [{"Candidate": name, **FIGURES, "Times faster": "0.82", "Verdict": "slower than fp32"} for name in CANDIDATES],
        ("Candidate", "Verdict"),
    ),
    "packages": (
        [
            {"Student": student, **FIGURES, "Package": package}
            for student, package in (
                ("layers:2 (below linear baseline)", "models/tweeteval_emotion-layers-2-onnx-int8-cascade-1ms"),
                ("layers:4", "validation loss 0.1234 after 12 epochs, and 0.1133 of layers:2"),
                ("teacher", ""),
            )
        ],
        ("Student", "Package"),
    ),
    "fits": ([{"Run": "runs/a", "Macro F1": "0.9"}], ("Run",)),
    "Bangla": ([{"Slice": "বিষয়=ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে " * 3, **FIGURES}], ("Slice",)),
}


@pytest.mark.parametrize("name", TABLES)
def test_at_80_columns_every_text_is_whole_and_has_at_most_three_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(console, "console", lambda stderr=False: Console(width=80, highlight=False))
    lines, left = TABLES[name]
    console.print_table(lines, "title", left=left)
    table, _, notes = capsys.readouterr().out.rpartition("─")
    body = notes.splitlines()
    assert all(cell_len(line) <= 80 for line in table.splitlines())
    assert len(body) <= 2 + 4 * len(lines)
    words = notes.split()
    for line in lines:
        for cell in line.values():
            assert set(cell.split()) <= set(words)  # no word is broken
        longest = max(line.values(), key=len)
        if longest.startswith("models/"):
            assert longest in notes


def test_a_log_gets_few_lines_of_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    said: list[str] = []
    monkeypatch.setattr(console, "say", said.append)

    def work() -> None:
        with console.bar("training", 1000) as advance:
            for _ in range(1000):
                advance(1)

    work()
    assert said == [f"training: {tenths} %" for tenths in range(10, 100, 10)]
    said.clear()
    monkeypatch.setattr(console, "LINE_SECONDS", 1e9)
    work()
    assert said == []


def test_progress_with_a_rate_says_units_per_second_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    said: list[str] = []
    monkeypatch.setattr(console, "say", said.append)
    with console.bar("predicting", 100, "rows") as advance:
        advance(50, 7)
    assert re.fullmatch(r"predicting: 50 %, [\d,]+ rows/s, [\d,]+ s left", said[0])
    terminal = Console(force_terminal=True, file=io.StringIO(), width=120)
    monkeypatch.setattr(console, "_stderr", lambda: terminal)
    with console.bar("predicting", 100, "rows") as advance:
        advance(50, 7)
    assert re.search(r"50%.* [\d,]+ rows/s", terminal.file.getvalue())  # type: ignore[attr-defined]


def test_downloads_show_no_progress_bar_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

    from toolkit.modeling.hugging_face import quiet_transformers

    enable_progress_bars()
    try:
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        quiet_transformers()
        assert not are_progress_bars_disabled()
        monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
        quiet_transformers()
        assert are_progress_bars_disabled()
    finally:
        enable_progress_bars()

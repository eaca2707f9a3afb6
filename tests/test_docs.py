"""The pages of the site: messages are those of the code, figures those of the results, commands parse."""

import csv
import re
import shlex
from pathlib import Path

import click
import pytest

from toolkit.cli import verbs

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
JOINED = re.compile(r'"\s*\n\s*f?"')
"""The end of a string and the beginning of the next, which Python joins."""
PAGES = ("choosing.md", "tutorial-raspberry-pi.md", "tutorial-hugging-face.md")


def test_messages_of_the_troubleshooting_page_are_in_the_code() -> None:
    files = [file for top in ("toolkit", "exporters") for file in (ROOT / top).rglob("*.py")]
    code = "\n".join(JOINED.sub("", file.read_text("utf-8")) for file in files)
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    messages = re.findall(r"\*\*`([^`]+)`\*\*", page)
    assert len(messages) > 30
    pieces = [piece.strip() for message in messages for piece in message.split("…")]
    assert [piece for piece in pieces if piece and piece not in code] == []


def test_figures_of_the_gallery_are_those_of_the_files() -> None:
    """Every number in a table is one of the table's CSV file, rounded."""
    sections = re.split(r"^## ", (DOCS / "gallery.md").read_text("utf-8"), flags=re.M)[1:]
    assert len(sections) >= 5
    for section in sections:
        (name,) = re.findall(r"\(\.\./benchmarks/results/([\w-]+\.csv)\)", section)[:1]
        with (ROOT / "benchmarks" / "results" / name).open(encoding="utf-8", newline="") as file:
            found = [float(cell) for row in csv.reader(file) for cell in row if re.fullmatch(r"-?\d+(\.\d+)?", cell)]
        rows = [line.strip("|").split("|")[1:] for line in section.splitlines() if line.startswith("| ")][1:]
        cells = [cell.strip() for row in rows for cell in row]
        numbers = [cell for cell in cells if re.fullmatch(r"-?\d+(\.\d+)?", cell)]
        assert len(numbers) >= 9, name
        for number in numbers:
            places = len(number.partition(".")[2])
            assert any(abs(round(value, places) - float(number)) < 1e-9 for value in found), f"{name}: {number}"


def commands() -> list[list[str]]:
    """The hbt commands in the blocks of the pages."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"^```\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)
    ]
    lines = [line.split(" #")[0] for block in blocks for line in block.splitlines() if line.startswith("hbt ")]
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_of_the_tutorials_parse(words: list[str]) -> None:
    command = verbs.get_command(click.Context(verbs), words[0])
    assert command is not None, f"no verb {words[0]}"
    command.make_context(words[0], words[1:])


def test_every_page_is_in_the_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert [file.name for file in DOCS.glob("*.md") if f": {file.name}\n" not in listed] == []

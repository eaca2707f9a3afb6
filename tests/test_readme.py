"""Every command of the README parses, and the commands on the committed package run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from toolkit.cli import verbs

ROOT = Path(__file__).resolve().parent.parent
# Repeats: text, language of a block, block, end of the block.
PARTS = re.split(r"^```(\w*)$", (ROOT / "README.md").read_text("utf-8"), flags=re.M)
BLOCKS = [block for language, block in zip(PARTS[1::4], PARTS[2::4], strict=True) if not language]
LINES = [line.split(" #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = [shlex.split(line) for line in LINES]
HBT = [words[1:] for words in COMMANDS if words[0].endswith("hbt")]
RUNNABLE = [words for words in HBT if any("models/demo-onnx-int8" in word for word in words)]


def test_the_readme_shows_the_main_verbs() -> None:
    assert {"data", "train", "compress", "bench", "predict", "verify"} <= {words[0] for words in HBT}


@pytest.mark.parametrize("words", HBT, ids=" ".join)
def test_command_parses(words: list[str]) -> None:
    command = verbs.get_command(click.Context(verbs), words[0])
    assert command is not None, f"no verb {words[0]}"
    command.make_context(words[0], words[1:])


@pytest.mark.parametrize("words", RUNNABLE, ids=" ".join)
def test_command_on_the_committed_package_runs(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "toolkit.cli", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_make_targets_of_the_readme_exist() -> None:
    targets = {words[1] for words in COMMANDS if words[0] == "make"}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, flags=re.M) for target in targets)


def test_links_of_readme_and_docs_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "models" / "README.md"]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"

"""Classify texts with the model in this folder, on any CPU.

    python how_to_load.py "text" ["another text" …]
    python how_to_load.py --help      # standard input, CSV files, self-test, benchmark

or, from Python:

    from how_to_load import load
    model = load()
    model.predict(["text"])           # [("label", probability of that label)]
    model.predict_proba(["text"])     # for each text, the probability of each label in model.labels

Requires only the packages in requirements.txt. Checks every file against manifest.json before it loads the model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(load: Callable[..., Any]) -> None:
    """Run the command line, which is in command_line.py beside this file."""
    sys.dont_write_bytecode = True  # the folder stays as manifest.json states it
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    try:
        from command_line import run  # type: ignore[import-not-found]
    except ImportError as error:
        print(f"{error}: copy command_line.py beside how_to_load.py", file=sys.stderr)
        sys.exit(2)
    run(load, Path(__file__).resolve().parent)

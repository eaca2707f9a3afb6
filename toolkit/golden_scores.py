"""Score the golden texts of a package in a process of its own, with limits on time and memory.

The graph of a package from elsewhere may loop forever, allocate all memory or crash its runtime.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.registry import exporter

TIMEOUT_S = 120
MEMORY_BYTES = 16 * 2**30
"""Limit on the address space of the process; PyTorch alone maps about 5 GiB."""
_PROJECT = Path(__file__).resolve().parents[1]
_CODE = (
    "import json, sys; request = json.load(sys.stdin); sys.path[:] = request['path']; "
    "from toolkit.golden_scores import answer; answer(request)"
)


@dataclass(frozen=True)
class Scored:
    """What a package answers to its golden texts."""

    labels: list[str]
    """All labels of the model, in the order of its scores."""
    predicted: list[str]
    scores: list[list[float]]


def score_texts(folder: Path, target: str, texts: Sequence[str], timeout_s: float = TIMEOUT_S) -> Scored | str:
    """Return what a package of a target answers to each text by itself, or in one line why it does not."""
    request = {
        # This hbt first: a folder that comes before it may hold another module of the name of one of its layers.
        "path": [str(_PROJECT), *(entry for entry in sys.path if entry)],
        "folder": str(folder.resolve()),
        "target": target,
        "texts": list(texts),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CODE],
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return f"does not answer its golden texts within {timeout_s:g} seconds"
    if done.returncode < 0:
        return f"stops its runtime ({_signal_name(-done.returncode)}) when it is loaded"
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        return found["problem"] if "problem" in found else Scored(**found)
    except (ValueError, LookupError, TypeError):
        return f"stops its runtime (exit code {done.returncode}) when it is loaded"


def answer(request: dict[str, Any]) -> None:
    """Print the scores that `request` asks for as one line of JSON. Runs in the process of its own."""
    _limit_memory()
    try:
        found = _scores(Path(request["folder"]), request["target"], request["texts"])
    except ImportError as error:
        needed = " ".join(exporter(request["target"]).needs(Path(request["folder"])))
        found = {"problem": f"needs {error.name}, which is not installed: pip install {needed}"}
    except MemoryError:
        found = {"problem": "does not load: it needs too much memory"}
    except Exception as error:  # the runtimes raise their own types for a broken file
        found = {"problem": f"does not load: {one_line(error)}"}
    print(f"\n{json.dumps(found)}", flush=True)


def one_line(error: Exception) -> str:
    """Return the message of an error, and its type unless that is ValueError, in a line of about 300 characters."""
    message = " ".join(str(error).split()).rpartition("does not load: ")[2] or "no message"
    short = message if len(message) <= 300 else f"{message[:300]}…"
    return short if type(error) is ValueError else f"{type(error).__name__}: {short}"


def _scores(folder: Path, target: str, texts: list[str]) -> dict[str, Any]:
    model = exporter(target).load(folder, threads=1)
    scores = [model.predict_proba([text])[0].tolist() for text in texts]
    predicted = [model.predict([text])[0][0] for text in texts]
    return {"labels": list(model.labels), "predicted": predicted, "scores": scores}


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

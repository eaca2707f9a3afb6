"""Train one peer in a process of its own, so that its seconds, CPU seconds and peak memory are its own.

    python -m benchmarks.peers.training SPEC.json

The process gets training and validation rows only, from a file: test rows are not there to be seen. What it writes is
kept, so that an interrupted comparison goes on; a peer that fails leaves a reason instead.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Missing, Rows
from benchmarks.peers.registry import PEERS, Peer

FACTS_FILE = "peer.json"
PROJECT = Path(__file__).resolve().parents[2]
CHECKED = 4
"""Validation texts that a peer must label the same after it is loaded from its files."""


def train_peer(name: str, rows: Rows, out: Path, given: Given, python: Path | None = None) -> str | None:
    """Train a peer into the folder OUT/NAME unless it is there; return None, or why it cannot be trained.

    python: interpreter of its environment; None for this one.
    """
    from toolkit.utils.files import whole_folder
    from toolkit.utils.scratch import remove_folder, scratch_folder

    if (out / name).exists():
        return None
    environment = PEERS[name].environment
    if environment is not None and python is None:
        return f"not run: needs an environment of its own, --python {environment}=PYTHON"
    remove_folder((out / name).with_name(f"{name}.partial"))
    try:
        with whole_folder(out / name) as partial, scratch_folder() as scratch:
            rows.save(scratch / "rows.json")
            starts = {key: None if path is None else str(path.resolve()) for key, path in asdict(given).items()}
            spec = {"peer": name, "rows": str(scratch / "rows.json"), "folder": str(partial), "given": starts}
            (scratch / "spec.json").write_text(json.dumps(spec), "utf-8")
            _run(python or Path(sys.executable), scratch / "spec.json")
    except Missing as reason:
        return f"not run: {reason}"
    return None


def facts_of(name: str, out: Path) -> dict[str, Any]:
    """Return what a trained peer wrote: settings, validation macro-F1, versions and costs of training."""
    return json.loads((out / name / FACTS_FILE).read_text("utf-8"))


def _run(python: Path, spec: Path) -> None:
    """Train in a process. Raises: Missing with the last line of its errors if it fails."""
    paths = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    # The scripts of its environment come first, so that `optimum-cli` is the right one; nothing is downloaded.
    found = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    environment = os.environ | {
        "PYTHONPATH": paths,
        "PATH": found,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    command = [str(python), "-P", "-m", "benchmarks.peers.training", str(spec)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    except OSError as error:
        raise Missing(f"{python}: {error}") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise Missing(lines[-1][:300] if lines else f"exit code {done.returncode}")


def train_here(peer: Peer, rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Train a peer in this process and return what `facts_of` reads. Raises: Missing if something is not there."""
    started, cpu = time.perf_counter(), _cpu_seconds()
    module = importlib.import_module(f"benchmarks.peers.{peer.module}")
    found = module.train(rows, folder, given)
    facts = found | {"seconds": time.perf_counter() - started, "cpu_seconds": _cpu_seconds() - cpu}
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2), "utf-8")
    for model in peer.models:
        labels = module.load(folder, rows.names, model)(rows.validation_texts[:CHECKED])
        if len(labels) != CHECKED or not {*labels} <= {*rows.names}:
            raise Missing(f"{model}: does not answer with labels after it was loaded: {labels}")
    return facts


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those it has waited for."""
    return sum(os.times()[:4])


def _peak_mib() -> float:
    """Return the peak resident memory of this process, or of the largest that it has waited for."""
    import resource

    from exporters.loaders.command.timing import peak_rss_mib

    return max(peak_rss_mib() or 0.0, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    folder = Path(spec["folder"])
    given = Given(**{key: None if path is None else Path(path) for key, path in spec["given"].items()})
    try:
        facts = train_here(PEERS[spec["peer"]], Rows.load(Path(spec["rows"])), folder, given)
    except (ImportError, Missing) as error:
        sys.exit(f"{type(error).__name__}: {error}" if isinstance(error, ImportError) else str(error))
    (folder / FACTS_FILE).write_text(json.dumps(facts | {"peak_mib": _peak_mib()}, indent=2), "utf-8")


if __name__ == "__main__":
    main()

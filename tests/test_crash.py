"""Kill small pipelines before their file operations and in the middle of writing a file, or fill the disk; resume them.

HBT_CRASH_POINTS sets how many points of each work are tried: a number, or "all". They are spread evenly over it.
"""

import errno
import gc
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from tests.helpers import tiny_recipe, write_comments
from toolkit import cli
from toolkit.config.toml_file import write_recipe
from toolkit.manifest import changed_files
from toolkit.tracking import mlflow_runs as tracking
from toolkit.utils.tracking_queue import TrackingQueue
from toolkit.workflows.pipeline import run_pipeline

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that a point costs a second"),
]
SHIPS: dict[str, Any] = {"slice": (), "search": "off", "max_drop": 1.0}
SMALL = tiny_recipe(model="shape:1x32", student="layers:1", name="small", **SHIPS)
EVERY_STAGE = tiny_recipe(
    student="layers:2",
    learning_rate="auto",
    kd_learning_rate=None,
    pipeline="baseline_kd_prune_quant",
    prune_sparsity=0.5,
    quant_method="qat",
    name="every",
    **SHIPS,
)
CASCADE = tiny_recipe(model="shape:1x32", student="layers:1", cascade=True, name="cascade", **SHIPS)
TEACHER = tiny_recipe(model="shape:2x32", student=None, pipeline="baseline", name="teacher", **SHIPS)
SEARCHED = ("ngram:10", "layers:1", "layers:2", "shape:1x64", "cascade")
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.link", "os.truncate"}
FREE = CHANGES - {"os.mkdir", "os.link"}
"""What a full disk still does."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
Point = tuple[int, bool]
"""Number of the operation, from 0, and whether it is killed in the middle of writing its file instead of before it."""


TIMES = re.compile(r'"(seconds|eval_(runtime|(samples|steps)_per_second))": [\d.e-]+')
"""What tells the time in a JSON file."""
Files = dict[str, Any]
"""Names of files to what they hold, without what tells the time."""
Reference = tuple[Files, list[Point]]
Trouble = Callable[[str, Point, Files, Path], str]
"""Makes trouble in a work at a point, in a folder; returns what is not as it is without."""
WORKS: dict[str, list[str]] = {
    "small": ["run --recipe small.toml"],
    "every stage": ["run --recipe every.toml"],
    "cascade": ["run --recipe cascade.toml"],
    "search": [
        "train --recipe teacher.toml",
        # No student is over this budget, and the better half is trained to the end.
        "students comments.csv --teacher runs/teacher --name found --kd-epochs 4 --search off --max-drop 1 "
        "--budget-ms 1000 --students ngram:10|layers:1|layers:2|shape:1x64|cascade",
    ],
}
"""What is killed: names to commands."""


class Operations:
    """Count the operations that change files, and kill this process at one of them."""

    def __init__(self, home: Path, kill: Point | None = None, full: int | None = None) -> None:
        self.home, self.kill, self.count = os.fspath(home), kill, 0
        self.full = full
        """Number of the operation from which on the disk is full."""
        self.points: list[Point] = []

    def watch(self) -> None:
        import safetensors.numpy
        import safetensors.torch

        sys.addaudithook(self.hear)
        # Native code that raises no audit event:
        for module, name in ((safetensors.torch, "serialize_file"), (safetensors.numpy, "serialize_file")):
            setattr(module, name, self.counted(getattr(module, name), 1))
        torch.save = self.counted(torch.save, 1)

    def counted(self, write: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.happen(os.fspath(arguments[place]), os.O_TRUNC)
            return write(*arguments, **options)

        return call

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes) and (arguments[2] or 0) & WRITES:
            path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100, resolving reads the disk
            if path.startswith(self.home):
                self.happen(path, arguments[2])
        elif event in CHANGES:
            self.happen(None, 0, event in FREE)

    def happen(self, path: str | None, flags: int, free: bool = False) -> None:
        now = self.count
        self.count += 1
        needs_space = not free and (path is None or flags & (os.O_CREAT | os.O_TRUNC))
        if self.full is not None and now >= self.full and needs_space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        # Opening a file to flush it to the disk leaves it whole.
        path = path if flags & (os.O_CREAT | os.O_TRUNC) else None
        self.points += [(now, False)] + [(now, True)] * (path is not None)
        if self.kill is not None and self.kill[0] == now:
            self.kill, torn = None, self.kill[1]  # what follows is not an operation of the run
            if torn and path is not None:
                with open(path, "ab" if flags & os.O_APPEND else "wb") as half:  # noqa: PTH123
                    half.write(b'{"half')
            os.kill(os.getpid(), signal.SIGKILL)


def write(file: Path, held: Any) -> None:
    file.write_text(json.dumps(held))


def start(find: Callable[[], str], file: Path) -> int:
    """Start `find` in a copy of this process, which writes what it returns to a file; return the process id."""
    child = os.fork()
    if child == 0:
        try:
            problem = find()
        except BaseException:
            problem = traceback.format_exc()
        write(file, problem)
        os._exit(0)
    return child


def in_fork(work: Callable[[], Any], log: Path) -> int:
    """Run `work` in a copy of this process; return its exit code, negative if it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with log.open("w") as out:
                for stream in (1, 2):
                    os.dup2(out.fileno(), stream)
                sys.stdout = sys.stderr = out
                try:
                    work()
                    code = 0
                except SystemExit as stop:
                    code = int(stop.code or 0)
                except BaseException:
                    traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(work: str, home: Path, kill: Point | None = None, full: int | None = None) -> list[Point]:
    """Do a work as on the command line; return the points at which it can be killed."""
    os.chdir(home)
    tempfile.tempdir = os.fspath(home / "temporary")
    operations = Operations(home, kill, full)
    operations.watch()
    for command in WORKS[work]:
        sys.argv = ["hbt", *(each.replace("|", " ") for each in command.split())]
        cli.main()
    return operations.points


def made(home: Path) -> Files:
    """Return every file of a run, without what tells the time, and what it has to log."""
    found: Files = {}
    for file in sorted(home.rglob("*")):
        name = re.sub(r"_\d{8}-\d{6}\.csv$", "_TIME.csv", file.relative_to(home).as_posix())
        if file.is_dir() or name.startswith("comments") or name == "log":
            found[name] = ""
        elif file.suffix in (".json", ".md", ".svg", ".csv"):
            found[name] = TIMES.sub("", file.read_text("utf-8"))
        elif file.name == "tracking.jsonl":
            lines = [line | {"time_ms": 0} for line in TrackingQueue.open(file.parent).lines]
            for line in lines:
                line.pop("sha256", "")
                if "finished" in line:
                    line["finished"] = line["finished"].split()[0]
                if "artifact" in line:
                    line["artifact"] = re.sub(r"_\d{8}-\d{6}\.csv$", "_TIME.csv", line["artifact"])
            found[name] = sorted({json.dumps(line, sort_keys=True) for line in lines})
        else:
            found[name] = file.read_bytes()
    return found


_send = tracking._send
_new_id = uuid.uuid4


def tracked(work: str, home: Path, kill: Point | None = None, sync: bool = False) -> dict[str, Any]:
    """Do a work with MLflow and, if `sync`, log what it owes twice; return what MLflow has of each run."""
    tracking._send, uuid.uuid4 = _send, _new_id
    run(work, home, kill)
    for _ in range(2 * sync):
        sys.argv = ["hbt", "sync", "runs/small"]
        cli.main()
    client = MlflowClient("sqlite:///mlflow.db")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return {
        f"{each.info.run_name} {each.info.status}": {
            "metrics": {
                name: [(point.step, point.value) for point in client.get_metric_history(each.info.run_id, name)]
                for name in each.data.metrics
                if "seconds" not in name and "time" not in name
            },
            "parameters": each.data.params,
            "artifacts": sorted(
                re.sub(r"_\d{8}-\d{6}\.csv$", "_TIME.csv", artifact.path)
                for folder in ("", "outputs", "package", "model")
                for artifact in client.list_artifacts(each.info.run_id, folder)
            ),
        }
        for each in runs
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same times and ids in every run, one thread, and nothing is sent to MLflow; every module is imported."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("workflows.run_summary", "export.stage"):
            patch.setattr(f"toolkit.{module}.median_latency_ms", lambda *_: 1.0)
        costs = lambda builders, *_: [(1.0, 1.0)] * len(builders)  # noqa: E731
        patch.setattr("toolkit.workflows.halving.latency_and_size", costs)
        for module in ("candidates", "cascade"):
            times = lambda models, *_: np.ones((2, len(models)))  # noqa: E731
            patch.setattr(f"toolkit.export.{module}.times_in_turns", times)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))
        patch.setattr(tracking, "_send", lambda tracked: None)
        patch.setattr(sys, "dont_write_bytecode", True)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        patch.chdir(new_home(tmp_path_factory.mktemp("imports")))
        run_pipeline(EVERY_STAGE)
        run_pipeline(CASCADE)
        gc.collect()
        gc.freeze()  # a copy of this process would wait for threads that it does not have if it freed a session
        yield
        gc.unfreeze()
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reference(prepared: None, tmp_path_factory: pytest.TempPathFactory, work: str) -> Reference:
    """What a work makes without a kill, and the points at which it can be killed."""
    home = new_home(tmp_path_factory.mktemp("reference"))
    file = home.parent / "points.json"
    assert in_fork(lambda: write(file, run(work, home)), home.parent / "log") == 0, (home.parent / "log").read_text()
    return made(home), [(k, torn) for k, torn in json.loads(file.read_text())]


def new_home(parent: Path) -> Path:
    home = parent / "home"
    (home / "temporary").mkdir(parents=True)
    write_comments(home / "comments.csv", 240)
    for recipe in (SMALL, EVERY_STAGE, CASCADE, TEACHER):
        write_recipe(recipe, home / f"{recipe.run.name}.toml")
    return home


def chosen(points: list[Point], default: int) -> list[Point]:
    wanted = os.environ.get("HBT_CRASH_POINTS", str(default))
    count = len(points) if wanted == "all" else min(int(wanted), len(points))
    return [points[k * len(points) // count] for k in range(count)]


def problem_of(work: str, point: Point, expected: Files, home: Path) -> str:
    """Kill a work at a point and resume it; return what is not as in one without a kill."""
    log = home.parent / "log"
    if in_fork(lambda: run(work, home, point), log) != -signal.SIGKILL:
        return f"was not killed: {log.read_text()[-2000:]}"
    return problem_of_resuming(work, expected, home)


def problem_of_full_disk(work: str, point: Point, expected: Files, home: Path) -> str:
    """Fill the disk at a point, free it and resume; return what is not one line, or not as without a full disk."""
    log = home.parent / "log"
    code = in_fork(lambda: run(work, home, full=point[0]), log)
    shown = log.read_text()
    lines = [line for line in shown.splitlines() if line.startswith("hbt: ")]
    told = len(lines) == 1 and "No space left on device" in lines[0] and "Traceback" not in shown
    if code != 2 or not told:
        return f"exit code {code}: {shown[-2000:]}"
    return problem_of_resuming(work, expected, home)


def problem_of_resuming(work: str, expected: Files, home: Path) -> str:
    log = home.parent / "log"
    for package in home.glob("models/*"):
        hidden = package.name.startswith(".") or package.suffix == ".partial"
        if package.is_dir() and not hidden and changed_files(package):
            return f"half a package: {package.name} {changed_files(package)}"
    if in_fork(lambda: run(work, home), log) != 0:
        return f"does not resume: {log.read_text()[-2000:]}"
    found = made(home)
    differ = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    return "; ".join(difference(name, expected.get(name), found.get(name)) for name in differ)


def difference(name: str, before: Any, after: Any) -> str:
    """Return in what a file is another one, in one line."""
    if not isinstance(before, str) or not isinstance(after, str):
        missing = "is missing" if after is None else "is left behind" if before is None else "differs"
        return f"{name} {missing}"
    lines = zip(before.splitlines(), after.splitlines(), strict=False)
    return f"{name}: {next((pair for pair in lines if pair[0] != pair[1]), 'has another length')}"


@pytest.mark.parametrize(
    ("work", "trouble", "default"),
    [
        ("small", problem_of, 20),
        ("small", problem_of_full_disk, 10),
        ("every stage", problem_of, 6),
        ("cascade", problem_of, 6),
        ("search", problem_of, 5),
    ],
    scope="module",
)
def test_what_was_stopped_is_resumed_to_the_same_files(
    reference: Reference, tmp_path: Path, work: str, trouble: Trouble, default: int
) -> None:
    expected, points = reference
    if trouble is problem_of_full_disk:
        points = [(k, torn) for k, torn in points if torn]  # operations that need space
    tried = chosen(points, default)
    waiting, running, problems = list(tried), {}, {}
    while waiting or running:
        while waiting and len(running) < len(os.sched_getaffinity(0)):
            point = waiting.pop()
            home = new_home(tmp_path / f"{point[0]}-{point[1]}")
            running[start(lambda: trouble(work, point, expected, home), home.parent / "problem")] = point, home.parent  # noqa: B023, it is called before the next one
        child, _ = os.wait()
        point, folder = running.pop(child)
        problem = json.loads((folder / "problem").read_text())
        if problem:
            problems[point] = problem
            print(f"{point}: {problem}", flush=True)
        shutil.rmtree(folder)
    print(f"{work}: {len(tried)} of {len(points)} points, {len(problems)} problems")
    assert problems == {}


@pytest.mark.parametrize("work", ["small"], scope="module")
def test_mlflow_has_all_of_a_killed_and_resumed_run_once(reference: Reference, tmp_path: Path) -> None:
    def of(name: str, kill: Point | None, sync: bool) -> Any:
        home = tmp_path / name / "home"
        if not home.exists():
            new_home(home.parent)
        file, log = home.parent / "found.json", home.parent / "log"
        code = in_fork(lambda: write(file, tracked("small", home, kill, sync)), log)
        assert code == (0 if kill is None else -signal.SIGKILL), log.read_text()
        return json.loads(file.read_text()) if kill is None else None

    expected = of("whole", None, False)
    made = ("fold-1", "fold-2", "distillation", "export onnx-int8", "small (tester_baseline_kd_quant)")
    assert {f"{name} FINISHED" for name in made} <= set(expected)
    for point in chosen(reference[1], 4)[1:]:
        of(str(point[0]), point, False)
        assert of(str(point[0]), None, True) == expected, point

"""Kill `hbt predict --input FOLDER` at 50 random file operations: files are whole or absent, and it resumes."""

import json
import os
import random
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from tests.helpers import contents
from tests.test_crash import Operations, Point, in_fork, write
from toolkit.data.batches import reading
from toolkit.data.tables import Table, write_table
from toolkit.workflows.scoring.folder import label_files
from toolkit.workflows.scoring.labeler import TableOptions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that a kill costs a second"),
]
DEMO = Path(__file__).parents[4] / "models" / "demo-onnx-int8"
NAMES = ("a.csv", "b.jsonl", "c.parquet", "deep/d.tsv", "e.csv")
KILLS = 50


def work(home: Path, kill: Point | None = None) -> None:
    """Label the files of a folder, and write what was done beside it."""
    os.chdir(home)
    tempfile.tempdir = os.fspath(home.parent)
    operations = Operations(home, kill)
    operations.watch()
    found = label_files(DEMO, Path("in"), Path("out"), TableOptions(), 1)
    points = [[number, torn] for number, torn in operations.points]
    write(home.parent / "done", {"files": found.files, "skipped": found.skipped, "points": points})


def test_fifty_random_kills_leave_no_half_file_and_no_work_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROWS", 8)  # several batches a file
    source = tmp_path / "source"
    for number, name in enumerate(NAMES):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        texts = [f"ভালো {number} {row}" if row % 7 else "" for row in range(30)]
        write_table(Table("made", {"id": [str(row) for row in range(30)], "text": texts}), source / name)

    def new_home(name: str) -> Path:
        home = tmp_path / name / "home"
        shutil.copytree(source, home / "in")
        return home

    whole = new_home("whole")
    assert in_fork(lambda: work(whole), tmp_path / "log") == 0, (tmp_path / "log").read_text()
    expected = contents(whole / "out")
    points = [(number, torn) for number, torn in json.loads((tmp_path / "whole" / "done").read_text())["points"]]
    chosen = random.Random(14).choices(points, k=KILLS)
    seen = set()
    for number, point in enumerate(chosen):
        home = new_home(str(number))
        killed = in_fork(lambda: work(home, point), tmp_path / "log")  # noqa: B023, it is called here
        assert killed == -signal.SIGKILL, (tmp_path / "log").read_text()
        complete = [name for name in NAMES if (home / "out" / name).exists()]
        assert all((home / "out" / name).read_bytes() == expected[name] for name in complete), point
        assert in_fork(lambda: work(home), tmp_path / "log") == 0, (tmp_path / "log").read_text()  # noqa: B023
        done = json.loads((home.parent / "done").read_text())
        assert (done["skipped"], done["files"]) == (len(complete), len(NAMES) - len(complete)), point
        assert contents(home / "out") == expected, point
        assert sorted(path.name for path in home.iterdir()) == ["in", "out"]
        seen.add(len(complete))
        shutil.rmtree(home.parent)
    assert len(seen) >= 4  # killed before, between and after the files

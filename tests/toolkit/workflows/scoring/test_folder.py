"""Labeling many files: each is whole or absent, and what is done is not done again."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Hbt, contents
from toolkit import package as packages
from toolkit.data.batches import reading
from toolkit.data.batches.layout import survey
from toolkit.data.batches.reading import read_batches
from toolkit.data.tables import Table, read_table, write_table
from toolkit.utils.errors import InputError
from toolkit.workflows.predict_file import label_file
from toolkit.workflows.scoring import folder as folders, pool as pools
from toolkit.workflows.scoring.folder import RECORDS, label_files
from toolkit.workflows.scoring.labeler import InThisProcess, TableOptions, Task

DEMO = Path(__file__).parents[4] / "models" / "demo-onnx-int8"
TEXTS = ["ভালো ক্যামেরা", "", "একদম বাজে", "one, two", None, "=1+1"]
NAMES = ("a.csv", "b.jsonl", "c.parquet", "deep/d.tsv")
PLAIN = TableOptions()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        texts = [None if text is None else f"{text} {number}" if text else "" for text in TEXTS]
        table = Table("made", {"id": [str(i) for i in range(len(texts))], "text": texts})
        write_table(table, tmp_path / "in" / name)
    return tmp_path / "in"


def label(source: Path, processes: int = 1) -> folders.FolderResult:
    home = next(folder for folder in source.parents if (folder / "in").exists())
    return label_files(DEMO, source, home / "out", PLAIN, processes)


def test_every_file_gets_the_bytes_of_the_single_file_command(source: Path) -> None:
    found = label(source)
    assert (found.files, found.skipped, found.failed, found.rows) == (4, 0, (), 4 * len(TEXTS))
    model = packages.load(DEMO, 1)
    for name in NAMES:
        single = source.parent / f"single{Path(name).suffix}"
        label_file(model, source / name, single)
        assert (source.parent / "out" / name).read_bytes() == single.read_bytes(), name
    assert sorted(path.name for path in source.parent.iterdir() if path.name[0] == ".") == []  # no lock is left


def test_several_processes_write_what_one_writes(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label(source)
    alone = contents(source.parent / "out")
    (source.parent / "out").rename(source.parent / "alone")
    monkeypatch.setattr(reading, "ROWS", 2)  # of this process, which reads
    label(source, processes=2)
    parallel = contents(source.parent / "out")
    assert parallel.keys() == alone.keys()
    for name in NAMES:
        assert read_table(source.parent / "out" / name).columns == read_table(source.parent / "alone" / name).columns


def test_what_is_complete_is_skipped_and_what_changed_is_done_again(source: Path, tmp_path: Path) -> None:
    label(source)
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in NAMES}
    (source / "b.jsonl").write_text('{"text": "new"}\n')
    (tmp_path / "out" / "c.parquet").write_bytes(b"damaged")
    found = label(source)
    assert (found.files, found.skipped) == (2, 2)
    assert read_table(tmp_path / "out" / "b.jsonl").columns["text"] == ["new"]
    assert read_table(tmp_path / "out" / "c.parquet").columns["text"][0] == f"{TEXTS[0]} 2"
    for name in ("a.csv", "deep/d.tsv"):
        assert (tmp_path / "out" / name).stat().st_mtime_ns == before[name]
    assert label(source).skipped == 4
    other = label_files(DEMO, source, tmp_path / "out", TableOptions(text_column="text"), 1)
    assert (other.files, other.skipped) == (4, 0)


def test_another_package_labels_every_file_again(source: Path, tmp_path: Path) -> None:
    label(source)
    record = tmp_path / "out" / RECORDS / "a.csv.json"
    changed = json.loads(record.read_text()) | {"package": "0" * 64}
    record.write_text(json.dumps(changed))
    assert label(source).files == 1


def test_a_bad_file_is_one_line_and_the_others_are_labeled(
    source: Path, tmp_path: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "b.jsonl").write_text('{"text": "a"}\nnot json\n')
    (source / "0.csv").write_text("text\na,b\n")
    assert hbt("predict", str(DEMO), "--input", str(source), "--output", str(tmp_path / "out")) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("hbt: ")]
    assert lines[0].startswith(f"hbt: {source / '0.csv'}: line 2 has 2 fields")
    assert lines[1].startswith(f"hbt: {source / 'b.jsonl'}: line 2 is not JSON")
    assert lines[2] == "hbt: 2 files are not labeled, for the reasons above; fix them and rerun"
    assert "18 rows of 3 files labeled" in printed.out
    assert not (tmp_path / "out" / "b.jsonl").exists()
    assert hbt("predict", str(DEMO), "--input", str(source), "--output", str(tmp_path / "out"), "--json") == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["files"], found["skipped"], len(found["failed"])) == (0, 3, 2)


def test_a_pattern_names_files(source: Path, tmp_path: Path) -> None:
    assert label(source / "*.csv").files == 1
    assert label(source / "**" / "*.tsv").files == 1
    assert (tmp_path / "out" / "deep" / "d.tsv").exists()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda home: (home / "out").write_text(""), "is a file; --input .* names several"),
        (lambda home: write(home / "out" / "a.csv"), r"a\.csv: exists; give another --output, or overwrite it"),
        (lambda home: write(home / "in" / "a.txt"), r"both would become a\.csv; rename one"),
        (lambda home: (home / "out").symlink_to(home / "in"), "is in --input"),
    ],
)
def test_nothing_is_written_for_a_wrong_folder(source: Path, tmp_path: Path, prepare: Any, message: str) -> None:
    prepare(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=message):
        label(source)
    assert contents(tmp_path) == before


def write(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "none", "--output", "out"], "no such file"),
        (["--input", "in/*.xml", "--output", "out"], "no file there that ends in"),
        (["--input", "in", "--output", "in/out"], "is in --input in"),
        (["--input", "in", "--output", "out", "--encoding", "bogus"], "--encoding bogus: no such encoding"),
        (["--input", "in", "--output", "out", "--processes", "0"], "--processes"),
    ],
)
def test_wrong_options_are_one_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hbt: Hbt, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "none" in arguments:
        arguments = [*arguments[:3], "out.csv"]
    assert hbt("predict", str(DEMO), *arguments) == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_package_is_refused_before_anything_is_read(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a package"):
        label_files(source, source, tmp_path / "out", PLAIN)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_few_batches_are_held_however_long_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Memory is bounded if the reader never runs further ahead of the writer than the batches in work."""
    monkeypatch.setattr(reading, "ROWS", 2)
    (tmp_path / "a.csv").write_text("text\n" + "one two\n" * 100)
    layout = survey(tmp_path / "a.csv")
    read = written = most = 0

    def tasks() -> Iterator[tuple[int, Task]]:
        nonlocal read
        for batch in read_batches(layout):
            read += 1
            yield 0, Task(batch, layout, ".csv")

    with pools.labeling(DEMO, ["one"], processes) as workers:
        for _, _result in workers.label(tasks()):
            most = max(most, read - written)
            written += 1
    assert written == 50
    assert most <= (1 if processes == 1 else pools.WAITING * processes)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_job_leaves_whole_files_and_resumes_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    """The third of four files is being written when the command is killed with all it holds open."""
    label(source)
    (tmp_path / "out").rename(tmp_path / "whole")
    script = f"""
import os, signal
from pathlib import Path
from toolkit.workflows.scoring import folder
write, count = folder.write_labeled, 0
def killing(results, layout, partial, suffix, *more):
    global count
    count += 1
    if count == 3:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(results, layout, partial, suffix, *more)
folder.write_labeled = killing
package, source, out = map(Path, {[str(DEMO), str(source), str(tmp_path / "out")]!r})
folder.label_files(package, source, out, folder.TableOptions(), 1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    labeled = [name for name in NAMES if (tmp_path / "out" / name).exists()]
    assert labeled == ["a.csv", "b.jsonl"]
    found = label(source)
    assert (found.files, found.skipped) == (2, 2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_first_texts_decide_about_batches_for_all_files() -> None:
    class Dynamic:
        def predict_proba(self, texts: list[str], batch_size: int = 1) -> Any:
            import numpy as np

            return np.full((len(texts), 2), batch_size / 100)

    assert InThisProcess(Dynamic(), ["a", "b"]).batch_size == 1  # type: ignore[arg-type]

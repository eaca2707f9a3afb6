import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import Hbt
from toolkit.modeling.classifier import Classifier
from toolkit.pruning.plan import Plan
from toolkit.stages.teacher_logits import cached_logits
from toolkit.training.trainer import last_complete_checkpoint
from toolkit.utils import scratch
from toolkit.utils.files import read_json, whole_file, whole_folder, write_text
from toolkit.utils.scratch import remove_folder, remove_leftovers, scratch_folder, scratch_name


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(pid: int, folder: Path, kind: str = "folder") -> Path:
    path = folder / scratch_name().replace(f"-{os.getpid()}-", f"-{pid}-")
    if kind == "folder":
        path.mkdir()
        (path / "texts.json").write_text("[]")
    else:
        path.write_text("half")
    return path


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_dead_process_left_is_removed_and_what_a_live_one_uses_stays(
    tmp_path: Path, ended: int, kind: str
) -> None:
    dead, used = left_by(ended, tmp_path, kind), left_by(os.getppid(), tmp_path, kind)
    other_machine = tmp_path / ".hbt-othermachine-1-00000000"
    other_machine.mkdir()
    with scratch_folder(tmp_path) as own:
        remove_leftovers(tmp_path)
        assert set(tmp_path.iterdir()) == {used, own, other_machine}
    assert not dead.exists()
    assert not own.exists()


def test_a_process_with_the_number_of_the_killed_one_removes_its_files(tmp_path: Path) -> None:
    left = tmp_path / scratch_name()
    left.mkdir()
    scratch._OWN.discard(left.name)
    remove_leftovers(tmp_path)
    assert not left.exists()


def test_the_next_command_removes_texts_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hbt: Hbt, ended: int
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = left_by(ended, tmp_path)
    assert hbt("targets", "--json") == 0
    assert not left.exists()


def test_the_next_work_on_a_folder_removes_what_is_left_in_it_and_beside_it(tmp_path: Path, ended: int) -> None:
    partial = tmp_path / "stage.partial"
    partial.mkdir()
    left = [left_by(ended, tmp_path), left_by(ended, partial, "file")]
    with whole_folder(tmp_path / "stage"):
        pass
    assert not any(path.exists() for path in left)
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_kill_during_removal_leaves_no_half_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "training" / "checkpoint-7"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    (checkpoint / "model.safetensors").write_text("weights")

    def killed(folder: Path, **_: Any) -> None:
        next(folder.rglob("model.safetensors")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        remove_folder(tmp_path / "training")
    assert last_complete_checkpoint(tmp_path / "training") is None


def test_a_kill_while_a_file_is_written_keeps_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_text(file, '{"old": 1}')
    with pytest.raises(KeyboardInterrupt), whole_file(file) as partial:
        partial.write_text('{"ne')
        raise KeyboardInterrupt
    assert read_json(file) == {"old": 1}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"", b'{"kept": [', b"\xff\xfe", b"null", b"[]", b"[" * 100_000])
def test_damaged_state_reads_as_absent(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(content)
    assert not read_json(file)
    assert Plan.load(file) is None


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_damaged_cached_logits_are_computed_again(classifier: Classifier, tmp_path: Path, keep: int) -> None:
    texts = ["sea", "sun"]
    logits = cached_logits(classifier, texts, tmp_path, "test")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    np.testing.assert_array_equal(cached_logits(classifier, texts, tmp_path, "test"), logits)
    np.testing.assert_array_equal(cached_logits(classifier, texts, tmp_path, "test"), logits)

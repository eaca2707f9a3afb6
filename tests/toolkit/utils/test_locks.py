import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Hbt, contents
from toolkit.utils.errors import InputError
from toolkit.utils.locks import locked

HOLD = """
import sys
from pathlib import Path
from toolkit.utils.locks import locked
with locked(Path(sys.argv[1]), "wait"):
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process that holds a lock."""

    def __init__(self, path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Holder]]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    yield Holder


def test_a_lock_is_held_by_one_process_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold: type[Holder]
) -> None:
    monkeypatch.chdir(tmp_path)
    holder = hold("models/one")
    told = f"models/one: .*process {holder.process.pid} .*try another name"
    with pytest.raises(InputError, match=told) as caught, locked(Path("models/one"), "try another name"):
        pass
    assert "\n" not in str(caught.value)
    with locked(Path("models/two"), ""), pytest.raises(InputError), locked(Path("models/two"), ""):
        pass
    holder.kill()
    with locked(Path("models/one"), ""):
        assert [path.name for path in Path("models").iterdir()] == [".one.lock"]
    assert contents(tmp_path) == {}
    with locked(Path("deep/er/one"), ""):
        pass
    assert not Path("deep").exists()


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file" / "package", ""):
        pass


@pytest.mark.parametrize(
    ("held", "command"),
    [
        ("runs/tiny", ["run", "--recipe", "runs/tiny/recipe.toml"]),
        ("models/tiny-onnx-int8", ["run", "--recipe", "runs/tiny/recipe.toml"]),
        ("runs/tiny", ["run", "--recipe", "runs/tiny/recipe.toml", "--force"]),
        ("runs/tiny", ["compress", "runs/tiny", "-o", "models/new"]),
        ("models/new", ["compress", "runs/tiny", "-o", "models/new"]),
        ("models/new", ["compress", "runs/tiny/2-distillation", "--data", "comments.csv", "-o", "models/new"]),
        ("runs/tiny", ["sync", "runs/tiny"]),
    ],
)
def test_a_second_command_on_a_run_or_package_is_one_line_and_changes_nothing(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], hold: type[Holder], held: str, command: list[str]
) -> None:
    holder = hold(held)
    before = contents(copied)
    assert hbt(*command) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"hbt: {held}: another hbt command (process {holder.process.pid} ")
    assert told.count("\n") == 1
    assert contents(copied) == before
    holder.kill()


def test_a_package_that_another_command_has_made_meanwhile_is_not_replaced(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_meanwhile(path: Path, fix: str, wait_s: float = 0) -> object:
        if path.name == "new" and not path.exists():
            path.mkdir()
            (path / "model.onnx").write_text("of the other command")
        return locked(path, fix, wait_s)

    monkeypatch.setattr("toolkit.workflows.compress.locked", made_meanwhile)
    assert hbt("compress", "runs/tiny", "-o", "models/new") == 2
    assert "exists" in capsys.readouterr().err
    assert contents(copied / "models" / "new") == {"model.onnx": b"of the other command"}

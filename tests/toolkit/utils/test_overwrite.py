import json
import os
from pathlib import Path

import pytest

from tests.helpers import Hbt, contents
from toolkit.utils.errors import InputError
from toolkit.utils.files import replaced_folder, whole_folder
from toolkit.utils.overwrite import refuse_file, refuse_folder


def a_package(folder: Path) -> Path:
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "model.onnx").write_text("x")
    manifest = {"schema": 1, "files": {"onnx/model.onnx": {}}, "golden": [], "lineage": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def a_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text("")
    (folder / "corpus.json").write_text('{"fingerprint": "f"}')
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with packages, a run, and folders that hbt did not make."""
    monkeypatch.chdir(tmp_path)
    a_package(Path("models/one"))
    a_package(Path("models/two"))
    a_run(Path("runs/one"))
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("years of work")
    Path("extension").mkdir()
    Path("extension/manifest.json").write_text('{"manifest_version": 3, "files": []}')
    a_package(Path("outer"))
    a_package(Path("outer/inner"))
    Path("link").symlink_to("models/one")
    Path("notes.txt").write_text("x")
    return tmp_path


def test_force_replaces_a_folder_of_the_same_kind(place: Path) -> None:
    refuse_folder(Path("models/one"), True, "package")
    refuse_folder(Path("runs/one"), True, "run", "--name")
    refuse_folder(Path("models/new/deep"), False, "package")
    assert not Path("models/new").exists()


@pytest.mark.parametrize(
    "out",
    ["models", "runs", "thesis", "extension", "runs/one", "outer", "link", "notes.txt", ".", "..", "", "models/.."],
)
def test_force_does_not_replace_anything_else(place: Path, out: str) -> None:
    before = contents(place)
    with pytest.raises(InputError, match=r"give another path with -o") as caught:
        refuse_folder(Path(out), True, "package")
    assert "\n" not in str(caught.value)
    assert contents(place) == before


def test_a_package_that_is_the_working_directory_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("models/one")
    for out in (".", "../one", str(place / "models" / "one")):
        with pytest.raises(InputError, match="working directory"):
            refuse_folder(Path(out), True, "package")


def test_without_force_nothing_is_replaced(place: Path) -> None:
    with pytest.raises(InputError, match=r"models/one: exists; .* --force"):
        refuse_folder(Path("models/one"), False, "package")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("out", ["notes.txt/package", "/proc/package", "n" * 300, "models/" + "ম" * 90])
def test_a_path_that_cannot_be_written_is_refused_at_once(place: Path, out: str, force: bool) -> None:
    with pytest.raises(InputError, match=r"cannot be written|too long"):
        refuse_folder(Path(out), force, "package")


def test_a_folder_is_not_an_output_file(place: Path) -> None:
    for out in ("models", "no/such/folder.csv", "notes.txt"):
        with pytest.raises(InputError, match="--output"):
            refuse_file(Path(out), False, "--output")
    with pytest.raises(InputError, match="is a folder"):
        refuse_file(Path("models"), True, "--output")
    refuse_file(Path("notes.txt"), True, "--output")


def test_an_old_folder_is_back_if_it_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "file").write_text("x")
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise OSError("disk full")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="disk full"), whole_folder(old):
        pass
    assert (old / "file").read_text() == "x"


def test_a_kept_folder_stays_until_the_new_one_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for content in ("finished", "interrupted", "again"):
        with whole_folder(folder, keep_replaced=True) as partial:
            (partial / "content").write_text(content)
    assert (folder / "content").read_text() == "again"
    assert (replaced_folder(folder) / "content").read_text() == "finished"


def test_compress_by_force_keeps_the_other_packages(copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copied / "models")
    for out in ("models", ".", "runs/tiny", os.fspath(copied.parent)):
        assert hbt("compress", "runs/tiny", "-o", out, "--force") == 2
        assert capsys.readouterr().err.startswith(f"hbt: {out}: ")
    assert contents(copied / "models") == before

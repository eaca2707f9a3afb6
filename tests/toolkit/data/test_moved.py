import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.helpers import Hbt, tiny_recipe, write_comments
from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import load_corpus
from toolkit.data.moved import same_corpus
from toolkit.utils.errors import InputError

SETTINGS = CorpusSettings(data="data/comments.csv", folds=2)


@pytest.fixture
def fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a file that is then removed."""
    (tmp_path / "data").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    write_comments(tmp_path / "data" / "comments.csv", 240)
    found = load_corpus(SETTINGS).fingerprint
    shutil.move("data/comments.csv", "original.csv")
    return found


@pytest.mark.parametrize("place", ["home/runs/a", "home/runs", "home", "home/data"])
@pytest.mark.parametrize("known", ["data/comments.csv", "/far/away/data/comments.csv"])
def test_the_file_is_found_beside_the_run(fingerprint: str, place: str, known: str) -> None:
    Path(place).mkdir(parents=True)
    shutil.copy("original.csv", Path(place, "comments.csv"))
    settings, run = dataclasses.replace(SETTINGS, data=known), Path("home/runs/a")
    if known.startswith("/") and place == "home/data":
        with pytest.raises(InputError, match=r"comments\.csv: no such file, and none beside home/runs/a; give"):
            same_corpus(settings, fingerprint, run, None)
    else:
        found = same_corpus(settings, fingerprint, run, None)
        assert found.fingerprint == fingerprint
        assert Path(found.settings.data).samefile(Path(place, "comments.csv"))


def test_another_file_under_the_old_path_is_not_taken_for_it(fingerprint: str) -> None:
    write_comments(Path("data/comments.csv"), 250)
    with pytest.raises(InputError, match=r"^data/comments\.csv: not the rows that home/runs/a was trained on"):
        same_corpus(SETTINGS, fingerprint, Path("home/runs/a"), None)
    Path("home/runs/a").mkdir(parents=True)
    shutil.copy("original.csv", "home/comments.csv")
    assert same_corpus(SETTINGS, fingerprint, Path("home/runs/a"), None).fingerprint == fingerprint


def test_a_given_path_is_the_only_one(fingerprint: str) -> None:
    write_comments(Path("other.csv"), 250)
    assert same_corpus(SETTINGS, fingerprint, Path("a"), "original.csv").fingerprint == fingerprint
    with pytest.raises(InputError, match=r"other\.csv: not the rows"):
        same_corpus(SETTINGS, fingerprint, Path("a"), "other.csv")
    with pytest.raises(InputError, match=r"nothing\.csv"):
        same_corpus(SETTINGS, fingerprint, Path("a"), "nothing.csv")


def test_a_moved_run_is_compared_compressed_and_resumed(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fit in ("cross_validation.fit", "distillation.fit"):
        monkeypatch.setattr(f"toolkit.stages.{fit}", lambda *_: pytest.fail("trained again"))
    shutil.move("comments.csv", "renamed.csv")
    pair, package = ("runs/tiny/0-floor", "runs/tiny"), ("--target", "onnx-fp32", "--max-drop", "0.5")
    assert hbt("compare", *pair) == 2
    assert hbt("compare", *pair, "--data", "renamed.csv") == 0
    assert hbt("compress", "runs/tiny", *package) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "hbt: comments.csv: no such file, and none beside runs/tiny; give its path with --data FILE"
    assert hbt("compress", "runs/tiny", *package, "--data", "renamed.csv") == 0
    from toolkit.config.toml_file import write_recipe

    write_recipe(tiny_recipe(), Path("again.toml"))
    assert hbt("run", "--recipe", "again.toml") == 2
    assert hbt("run", "--recipe", "again.toml", "--data", "renamed.csv") == 0
    write_comments(Path("other.csv"), 300)
    assert hbt("run", "--recipe", "again.toml", "--data", "other.csv") == 2
    assert "other.csv: not the rows that runs/tiny was trained on" in capsys.readouterr().err.splitlines()[-1]


def test_a_home_is_used_from_another_folder_after_it_moved(
    copied: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    student = ("--teacher", "runs/tiny", "--student", "ngram:16", "--folds", "2", "--name", "second")
    assert hbt("train", "--data", "comments.csv", "--slice", "0:200", *student) == 0
    moved, here = copied.parent / "moved", copied.parent / "here"
    for folder in (moved, here):
        folder.mkdir()
    for name in ("runs", "models", "comments.csv"):
        shutil.move(name, moved)
    monkeypatch.chdir(here)
    assert hbt("compare", "../moved/runs/tiny/0-floor", "../moved/models/tiny-onnx-int8") == 0
    # Fewer rows of the table need the logits of the teacher, which was named by a path in the old home.
    small = ("--target", "c", "--budget-kb", "64", "--max-drop", "1", "-o", "small")
    assert hbt("compress", "../moved/runs/second", *small) == 0, capsys.readouterr().err
    shutil.rmtree(moved / "runs" / "tiny")
    assert hbt("compress", "../moved/runs/second", *small, "--force") == 2
    assert "runs/tiny" in capsys.readouterr().err.splitlines()[-1]

"""`hbt push` and `hbt pull` with folders and .zip files: complete and verified, or nothing and one line."""

import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import hbt as api
from tests.exporters.ngram.test_graph import package_of, student
from tests.helpers import Hbt, contents, rehash
from tests.test_api import write_key_pair
from toolkit import package as packages
from toolkit.utils.errors import InputError
from toolkit.workflows.transfer import archive

Damage = Callable[[Path], None]
"""Writes x.zip from the files of the package in the folder `package`."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a small n-gram network. Do not change it."""
    from exporters.registry import exporter

    folder = package_of(student(rows=256), "onnx-int8", tmp_path_factory.mktemp("made") / "package")
    target = exporter("onnx-int8")
    (folder / "README.md").write_text("# The card\n", "utf-8")
    golden = packages.golden_scores(target.load(folder), ["the sea is calm", "a 🙂"])
    packages.write_manifest(folder, target, "x86-64", {"corpus_fingerprint": "0" * 64, "run": "runs/toy"}, golden)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a copy of the package in `package`."""
    shutil.copytree(made, tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("where", ["sent.zip", "sent", "deep/er/sent"])
def test_a_package_arrives_as_it_was_and_again_only_with_force(
    here: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    assert hbt("push", "package", where) == 0
    assert hbt("pull", where, "new/one") == 0
    assert contents(here / "new" / "one") == contents(here / "package")
    assert names(here / "new") == {"one"}
    capsys.readouterr()
    for again in (("push", "package", where), ("pull", where, "new/one")):
        assert hbt(*again) == 2
        assert "--force" in capsys.readouterr().err
        assert hbt(*again, "--force") == 0
    capsys.readouterr()
    assert hbt("pull", where, "two", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["package"], found["where"], found["verification"]["problems"]) == ("two", where, [])


def test_the_python_functions_are_the_verbs(here: Path) -> None:
    sent = api.push("package", here / "sent.zip")
    got = api.pull(sent.where, here / "got")
    assert api.verify(got.package).problems == []
    assert got.files == sent.files
    with pytest.raises(InputError, match="exists"):
        api.pull(sent.where, got.package)
    assert api.pull(sent.where, got.package, force=True) == got


def test_the_same_package_gives_the_same_archive_and_one_packed_by_hand_is_pulled(here: Path, hbt: Hbt) -> None:
    for name in ("a.zip", "b.zip"):
        assert hbt("push", "package", name) == 0
        os.utime("package/config.json", (10**9, 10**9))
    assert Path("a.zip").read_bytes() == Path("b.zip").read_bytes()
    shutil.make_archive("flat", "zip", "package")
    shutil.make_archive("deep", "zip", ".", "package")
    for name in ("flat", "deep"):
        assert hbt("pull", f"{name}.zip", f"from-{name}") == 0
        assert contents(here / f"from-{name}") == contents(here / "package")


def test_a_signature_travels_and_is_checked_on_arrival(
    here: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    write_key_pair(here / "private.pem", here / "public.pem")
    write_key_pair(here / "other.pem", here / "stranger.pem")
    assert hbt("sign", "package", "--private-key", "private.pem") == 0
    assert hbt("push", "package", "sent.zip") == 0
    assert hbt("pull", "sent.zip", "one", "--public-key", "public.pem") == 0
    assert "signature valid" in capsys.readouterr().out
    assert hbt("pull", "sent.zip", "two", "--public-key", "stranger.pem") == 2
    assert not Path("two").exists()


def test_an_interrupted_push_or_pull_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    shutil.make_archive("flat", "zip", "package")
    before = names(here)
    monkeypatch.setattr(packages, "score_texts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        api.pull("flat.zip", "one")
    monkeypatch.undo()
    monkeypatch.setattr("toolkit.workflows.transfer.command.refuse_changed", interrupt)
    monkeypatch.chdir(here)
    with pytest.raises(KeyboardInterrupt):
        api.push("package", "sent.zip")
    assert names(here) == before


def entry(name: str, mode: int = stat.S_IFREG | 0o644, content: bytes | None = b"x") -> Damage:
    """The package and one entry more."""

    def damage(package: Path) -> None:
        shutil.make_archive("x", "zip", package)
        with zipfile.ZipFile("x.zip", "a") as file:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, content or b"")

    return damage


def listed_entry(name: str) -> Damage:
    """The package and one entry more, which its manifest lists."""

    def damage(package: Path) -> None:
        entry(name)(package)
        manifest = json.loads((package / "manifest.json").read_text("utf-8"))
        manifest["files"][name] = {"sha256": "0" * 64, "size_bytes": 1}
        with zipfile.ZipFile("y.zip", "w") as out, zipfile.ZipFile("x.zip") as old:
            for info in old.infolist():
                changed = json.dumps(manifest).encode() if info.filename == "manifest.json" else old.read(info)
                out.writestr(info, changed)
        Path("y.zip").replace("x.zip")

    return damage


def changed(name: str, content: bytes | None) -> Damage:
    """The package with another file, or without it, and its old manifest."""

    def damage(package: Path) -> None:
        (package / name).unlink()
        if content is not None:
            (package / name).write_bytes(content)
        shutil.make_archive("x", "zip", package)

    return damage


def bomb(package: Path) -> None:
    """An archive that would become more than MAX_RATIO times as much, with a manifest that says so."""
    (package / "zeros.bin").write_bytes(bytes(4 * archive.ANY_RATIO_BYTES))
    rehash(package)
    shutil.make_archive("x", "zip", package)
    (package / "zeros.bin").unlink()


def larger_than_stated(package: Path) -> None:
    """An archive whose table of contents says that a file is smaller than what its data become."""
    content = (package / "config.json").read_bytes()
    (package / "config.json").write_bytes(content + b" " * 5_000_000)
    shutil.make_archive("x", "zip", package)
    data = Path("x.zip").read_bytes()
    size, wrong = (value.to_bytes(4, "little") for value in (len(content) + 5_000_000, len(content)))
    assert data.count(size) >= 2
    Path("x.zip").write_bytes(data.replace(size, wrong))


def header_bytes(at: int, value: bytes) -> Damage:
    """The package with other bytes in the first entry of the table of contents."""

    def damage(package: Path) -> None:
        shutil.make_archive("x", "zip", package)
        data = bytearray(Path("x.zip").read_bytes())
        start = data.rfind(b"PK\x01\x02")
        data[start + at : start + at + len(value)] = value
        Path("x.zip").write_bytes(data)

    return damage


def ended(entries: int) -> Damage:
    """The package, whose summary states another number of entries."""

    def damage(package: Path) -> None:
        shutil.make_archive("x", "zip", package)
        data = bytearray(Path("x.zip").read_bytes())
        data[-12:-10] = entries.to_bytes(2, "little")
        Path("x.zip").write_bytes(data)

    return damage


def raw(content: bytes) -> Damage:
    return lambda _: Path("x.zip").write_bytes(content) and None


def truncated(package: Path) -> None:
    shutil.make_archive("x", "zip", package)
    Path("x.zip").write_bytes(Path("x.zip").read_bytes()[:-2000])


def cut_inside(package: Path) -> None:
    """Data that do not decompress."""
    shutil.make_archive("x", "zip", package)
    data = bytearray(Path("x.zip").read_bytes())
    with zipfile.ZipFile("x.zip") as file:
        at = next(info.header_offset for info in file.infolist() if info.filename == "tokenizer.json") + 60
    data[at : at + 40] = bytes(40)
    Path("x.zip").write_bytes(data)


def compressed_by(method: int) -> Damage:
    def damage(package: Path) -> None:
        with zipfile.ZipFile("x.zip", "w", method) as out:
            for name in contents(package):
                out.write(package / name, name)

    return damage


HOSTILE: dict[str, tuple[Damage, str]] = {
    "parent folder": (entry("../evil.py"), "'../evil.py' is not a plain path"),
    "inner parent folder": (entry("onnx/../../evil.py"), "is not a plain path"),
    "absolute path": (entry("/tmp/evil.py"), "is not a plain path"),
    "drive": (entry("C:/evil.py"), "is not a plain path"),
    "backslash": (entry("..\\evil.py"), "is not a plain path"),
    "listed parent folder": (listed_entry("../evil.py"), "is not a plain path"),
    "control character": (entry("evil\x1b[31m.py"), r"'evil\x1b[31m.py' is not a plain path"),
    "line break": (entry("evil\n.py"), r"'evil\n.py' is not a plain path".replace(r"\n", r"\x0a")),
    "right-to-left": (entry("evil\u202eyp.exe"), r"'evil\u202eyp.exe' is not a plain path"),
    "long name": (entry("n" * 5000), "is not a plain path"),
    "link": (entry("link", stat.S_IFLNK | 0o777, b"/etc/passwd"), "link is a link or a device"),
    "link in place of a folder": (entry("onnx", stat.S_IFLNK | 0o777, b"/tmp"), "onnx is a link or a device"),
    "device": (entry("dev", stat.S_IFCHR | 0o666), "dev is a link or a device"),
    "unlisted file": (entry("evil.py"), "evil.py is not in the manifest"),
    "unlisted bytecode": (entry("__pycache__/how_to_load.cpython-311.pyc"), "is not in the manifest"),
    "twice": (entry("config.json"), "config.json is there twice"),
    "missing file": (changed("config.json", None), "config.json is missing"),
    "another size": (changed("config.json", b"{}"), "config.json has 2 bytes instead of"),
    "no manifest": (changed("manifest.json", None), "no manifest.json"),
    "damaged manifest": (changed("manifest.json", b"[]"), "not a valid manifest"),
    "bomb": (bomb, "more than a package"),
    "larger than stated": (larger_than_stated, "not a usable .zip file"),
    "encrypted": (header_bytes(8, b"\x01\x00"), "is encrypted"),
    "unknown method": (header_bytes(10, b"\x63\x00"), "unusual method"),
    "bzip2": (compressed_by(zipfile.ZIP_BZIP2), "unusual method"),
    "many entries": (ended(60_000), "60,000 entries"),
    "empty": (raw(b""), "not a .zip file"),
    "no archive": (raw(b"text " * 9000), "not a .zip file"),
    "empty archive": (raw(b"PK\x05\x06" + bytes(18)), "not a package"),
    "ends in a zip64 locator": (raw(b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + bytes(18)), "more than a package"),
    "truncated": (truncated, "not a .zip file"),
    "broken data": (cut_inside, "not a usable .zip file"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_one_line_and_leaves_nothing(
    here: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    damage, message = HOSTILE[case]
    monkeypatch.setattr(archive, "ANY_RATIO_BYTES", 2**20)
    monkeypatch.setattr(archive, "MAX_RATIO", 2)
    monkeypatch.setattr(packages, "score_texts", lambda *_: pytest.fail("the model of a hostile package was run"))
    damage(here / "package")
    before = names(here), names(here.parent)
    assert hbt("pull", "x.zip", "deep/out") == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert printed.out == ""
    assert message in line
    assert line.startswith("hbt: x.zip") and len(line) < 700
    assert (names(here), names(here.parent)) == before


def test_a_hostile_folder_is_one_line_and_leaves_nothing(
    here: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "package" / "config.json").rename(here / "config.json")
    (here / "package" / "config.json").symlink_to(here / "config.json")
    os.mkfifo(here / "package" / "pipe")
    before = names(here)
    assert hbt("pull", "package", "out") == 2
    assert hbt("push", "package", "out") == 2
    for line in capsys.readouterr().err.splitlines():
        assert "config.json is not a regular file; pipe is not in the manifest" in line
    assert names(here) == before


def test_a_package_with_another_model_than_its_golden_scores_is_refused(
    here: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads(Path("package/manifest.json").read_text("utf-8"))
    manifest["golden"][0]["scores"] = manifest["golden"][0]["scores"][::-1]
    Path("package/manifest.json").write_text(json.dumps(manifest), "utf-8")
    shutil.make_archive("x", "zip", "package")
    for where in ("x.zip", "package"):
        assert hbt("pull", where, "out") == 2
        assert f"hbt: {where}: golden scores differ" in capsys.readouterr().err
    assert not Path("out").exists()

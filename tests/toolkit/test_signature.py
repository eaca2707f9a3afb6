"""`hbt sign` and `hbt verify --public-key`: a signature finds out an edit with consistent hashes, and only it can."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Hbt, contents, rehash
from toolkit import package
from toolkit.signature import sign
from toolkit.utils.errors import InputError
from toolkit.utils.overwrite import SIGNATURE_FILE, refuse_folder

pytest.importorskip("model_signing", reason="the extra [sign] is not installed")
DEMO = Path(__file__).parents[2] / "models" / "demo-onnx-int8"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pairs of keys: own.pem and own.pub, other.pem and other.pub."""
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    folder = tmp_path_factory.mktemp("keys")
    pairs: dict[str, Any] = {
        "own": ec.generate_private_key(ec.SECP256R1()),
        "other": ec.generate_private_key(ec.SECP384R1()),
        "edwards": ed25519.Ed25519PrivateKey.generate(),
    }
    for name, key in pairs.items():
        private = key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption())
        public = key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pem").write_bytes(private)
        (folder / f"{name}.pub").write_bytes(public)
    return folder


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return shutil.copytree(DEMO, tmp_path / "demo")


def test_a_signed_package_verifies_with_its_key_alone(
    demo: Path, keys: Path, hbt: Hbt, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hbt("sign", str(demo), "--private-key", str(keys / "own.pem")) == 0
    assert hbt("verify", str(demo), "--public-key", str(keys / "own.pub")) == 0
    assert "signature valid" in capsys.readouterr().out
    assert hbt("verify", str(demo)) == 0
    assert "signed, not checked: give --public-key" in capsys.readouterr().out
    assert hbt("verify", str(demo), "--public-key", str(keys / "other.pub")) == 2
    told = capsys.readouterr().err
    assert "is not a signature of these files by this key" in told
    assert told.count("\n") == 1
    assert package.load(demo).predict(["a"])


def edit_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["note"] = "an edit that changes no golden score"
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    rehash(folder)


def edit_lineage(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["lineage"]["model"] = "another"
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def damage_signature(folder: Path) -> None:
    held = bytearray((folder / SIGNATURE_FILE).read_bytes())
    held[len(held) // 2] ^= 1
    (folder / SIGNATURE_FILE).write_bytes(held)


def write_signature(held: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / SIGNATURE_FILE).write_bytes(held)


@pytest.mark.parametrize(
    ("fault", "found_without_key"),
    [
        (edit_config, False),
        (edit_lineage, False),
        (damage_signature, False),
        (lambda folder: (folder / SIGNATURE_FILE).unlink(), False),
        *((write_signature(held), False) for held in (b"", b"{}", b"[" * 100_000, b"\xff", b"x" * 2**21)),
        (lambda folder: (folder / ".git").mkdir() or (folder / ".git" / "x").touch(), True),
        (lambda folder: (folder / "README.md").write_text("edited"), True),
    ],
)
def test_a_change_after_signing_is_one_line(
    demo: Path, keys: Path, hbt: Hbt, capfd: Any, fault: Callable[[Path], Any], found_without_key: bool
) -> None:
    sign(demo, keys / "own.pem")
    fault(demo)
    assert hbt("verify", str(demo), "--public-key", str(keys / "own.pub")) == 2
    out, told = capfd.readouterr()
    assert (out, told.count("\n")) == ("", 1)
    assert bool(package.verify(demo).problems) is found_without_key


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to("/dev/zero"), Path.mkdir])
def test_a_signature_that_is_no_file_is_one_line(demo: Path, keys: Path, make: Callable[[Path], Any]) -> None:
    make(demo / SIGNATURE_FILE)
    found = package.verify(demo, keys / "own.pub").problems
    assert len(found) == 1
    assert SIGNATURE_FILE in found[0]


@pytest.mark.parametrize("key", ["gone.pem", "own.pub", "edwards.pem", "."])
def test_a_key_that_cannot_sign_is_one_line_and_no_signature(
    demo: Path, keys: Path, hbt: Hbt, capfd: Any, key: str
) -> None:
    before = contents(demo)
    assert hbt("sign", str(demo), "--private-key", str(keys / key)) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert contents(demo) == before


@pytest.mark.parametrize("key", ["gone.pub", "own.pem", "edwards.pub"])
def test_a_key_that_cannot_verify_is_one_line(demo: Path, keys: Path, hbt: Hbt, capfd: Any, key: str) -> None:
    sign(demo, keys / "own.pem")
    assert hbt("verify", str(demo), "--public-key", str(keys / key)) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_what_is_changed_or_signed_is_not_signed_again(demo: Path, keys: Path) -> None:
    sign(demo, keys / "own.pem")
    with pytest.raises(InputError, match="overwrite it with --force"):
        sign(demo, keys / "other.pem")
    sign(demo, keys / "other.pem", force=True)
    assert package.verify(demo, keys / "other.pub").signature == "valid"
    (demo / "README.md").write_text("edited")
    with pytest.raises(InputError, match=r"README\.md has changed"):
        sign(demo, keys / "own.pem", force=True)


def test_a_signed_package_may_be_replaced_with_force(demo: Path, keys: Path) -> None:
    sign(demo, keys / "own.pem")
    refuse_folder(demo, force=True, kind="package")


def test_without_the_library_the_advice_is_the_extra(demo: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
    with pytest.raises(InputError, match=r"pip install 'hbt-toolkit\[sign\]'"):
        sign(demo, keys / "own.pem")

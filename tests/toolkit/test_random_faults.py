"""Packages damaged at random: one line or the same answer, never a traceback, a hang or another answer.

Bit flips, truncations, swapped, extra and missing files, and edits with a consistent hash.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.registry import exporter
from tests.exporters.ngram.test_graph import package_of, student
from tests.helpers import Finished, contents, rehash
from toolkit import package
from toolkit.config.settings import ExportSettings
from toolkit.manifest import changed_files, read_manifest
from toolkit.signature import sign, signature_problems
from toolkit.utils.errors import InputError
from toolkit.workflows.compress import compress_run

TEXTS = ["the sea is calm", "খাবারটা ভালো", "a 🙂"]
EDITS = ("bit flip", "truncation", "swap", "extra", "missing", "edited manifest", "flip, re-hashed", "cut, re-hashed")
ODD_VALUES = (None, True, -1, 0, 1.5, "", "x", "\x1b[2J", [], {}, [[]], 10**30, 1e300, "../x", "/dev/zero")


def random_fault(dice: random.Random, folder: Path) -> str:
    """Damage a package at random; return the kind of damage."""
    kind = dice.choice(EDITS)
    names = sorted(name for name, held in contents(folder).items() if held)
    file = folder / dice.choice(names)
    held = bytearray(file.read_bytes())
    place = dice.randrange(len(held))
    if "flip" in kind:
        held[place] ^= 1 << dice.randrange(8)
        file.write_bytes(held)
    elif kind in ("truncation", "cut, re-hashed"):
        file.write_bytes(held[:place])
    elif kind == "swap":
        other = folder / dice.choice([name for name in names if folder / name != file])
        file.write_bytes(other.read_bytes())
        other.write_bytes(held)
    elif kind == "extra":
        (folder / f"extra{dice.randrange(99)}.pyc").write_bytes(held[:place])
    elif kind == "missing":
        file.unlink()
    else:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        _change_somewhere(dice, manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    if "re-hashed" in kind and file.name != "manifest.json":
        rehash(folder)
    return f"{kind} of {file.name}"


def _change_somewhere(dice: random.Random, value: Any) -> None:
    """Replace or remove one field at any depth."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = dice.choice(keys)
        if not isinstance(value[key], dict | list) or not value[key] or dice.random() < 0.2:
            break
        value = value[key]
    if dice.random() < 0.2:
        del value[key]
    else:
        value[key] = dice.choice(ODD_VALUES)


def attempt(call: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return the result of a call and its error, of which it allows only InputError and ValueError, in one line."""
    try:
        return call(), None
    except (InputError, ValueError) as error:
        problem = str(error)
    assert "\n" not in problem
    assert "Traceback" not in problem
    assert len(problem) < 3_000
    return None, problem


def verified(folder: Path) -> None:
    """Raise InputError unless a package verifies; a process is started only if its files are as listed."""
    problems = changed_files(folder, read_manifest(folder)) or package.verify(folder).problems
    if problems:
        raise InputError("; ".join(problems))


def fuzz(
    shipped: Path, home: Path, seed: int, faults: int, loader: str = "ngram_onnx", public_key: Path | None = None
) -> list[str]:
    """Damage a package so many times; return the faults that verify accepts. They must not change an answer.

    loader: module of the code in its how_to_load.py.
    public_key: of the signature of the package, which must find out every fault.
    """
    dice = random.Random(seed)
    own = import_module(f"exporters.loaders.{loader}").load
    expected = np.array(own(shipped).predict_proba(TEXTS))
    accepted = []
    for i in range(faults):
        folder = shutil.copytree(shipped, home / str(i))
        kind = random_fault(dice, folder)
        passed = attempt(lambda folder=folder: verified(folder))[1] is None
        for load in (own, package.load):
            loaded, error = attempt(lambda folder=folder, load=load: load(folder))
            assert not passed or error is None, (kind, error)
            if error is None:
                scores, error = attempt(lambda loaded=loaded: loaded.predict_proba(TEXTS))
                same = error is None and np.abs(np.array(scores) - expected).max() <= package.GOLDEN_TOLERANCE
                assert same or ("re-hashed" in kind and not passed), kind
        if passed:
            accepted.append(kind)
            assert public_key is None or signature_problems(folder, public_key), kind
        shutil.rmtree(folder)
    return accepted


ONLY_A_SIGNATURE = ("re-hashed of README.md", "re-hashed of how_to_load.py", "re-hashed of config.json",
                    "re-hashed of tokenizer.json", "re-hashed of model.onnx", "edited manifest of",
                    "re-hashed of command_line.py", "re-hashed of tokenizer_config.json",
                    "flip of manifest.json", "re-hashed of manifest.json", "re-hashed of requirements.txt",
                    "of model.sig", "re-hashed of cascade.svg", "re-hashed of calibration.svg",
                    "re-hashed of model.c", "re-hashed of model.h", "re-hashed of main.c",
                    "re-hashed of model.py", "re-hashed of model.bin", "re-hashed of scope.json")  # fmt: skip
"""Edits that verify accepts without a key, where they change no golden score: the card, the programs in the folder,
which hbt does not run, the lineage, the scope, a token or weight that no golden text needs; and those of the
signature itself."""


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete package of a small n-gram network. Do not change it: copy it."""
    folder = tmp_path_factory.mktemp("shipped") / "package"
    return complete(package_of(student(rows=256), "onnx-fp32", folder), "onnx-fp32")


def complete(folder: Path, name: str) -> Path:
    """Add the card and the manifest to a loadable folder; return it."""
    target = exporter(name)
    (folder / "README.md").write_text("# The card\n", "utf-8")
    lineage = {"corpus_fingerprint": "0" * 64, "run": "runs/toy"}
    package.write_manifest(folder, target, "x86-64", lineage, package.golden_scores(target.load(folder), TEXTS))
    return folder


@pytest.fixture(scope="module")
def signed(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path | None]:
    """The package with a signature, and its public key; without both if the extra [sign] is not installed."""
    folder = shutil.copytree(shipped, tmp_path_factory.mktemp("signed") / "package")
    if find_spec("model_signing") is None:
        return folder, None
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec

    key, private, public = ec.generate_private_key(ec.SECP256R1()), folder.parent / "key", folder.parent / "public"
    private.write_bytes(key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo))
    sign(folder, private)
    return folder, public


@pytest.mark.parametrize(
    ("seed", "faults"), [(0, 40), *(pytest.param(seed, 250, marks=pytest.mark.slow) for seed in range(1, 5))]
)
def test_random_faults_never_change_an_answer(
    signed: tuple[Path, Path | None], tmp_path: Path, seed: int, faults: int
) -> None:
    accepted = fuzz(signed[0], tmp_path, seed, faults, public_key=signed[1])
    print(f"accepted {len(accepted)} of {faults}:", sorted(set(accepted)))
    assert not_for_a_signature(accepted) == []


def not_for_a_signature(accepted: list[str]) -> list[str]:
    return [kind for kind in accepted if not any(name in kind for name in ONLY_A_SIGNATURE)]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx-int8", "python", "c"])
def test_random_faults_of_other_ngram_packages_never_change_an_answer(target: str, tmp_path: Path) -> None:
    shipped = complete(package_of(student(rows=256), target, tmp_path / "package"), target)
    loader = {"onnx-int8": "ngram", "python": "program", "c": "c"}[target]
    assert not_for_a_signature(fuzz(shipped, tmp_path, 7, 40, loader)) == []


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["onnx", "cascade"])
def test_random_faults_of_transformers_and_cascades_never_change_an_answer(
    finished: Finished, copied: Path, tmp_path: Path, loader: str
) -> None:
    shipped = copied / "models" / "tiny-onnx-int8"
    if loader == "cascade":
        export = ExportSettings(cascade=True, cascade_share=0.5, search="off", max_drop=0.5)
        shipped = Path("models/cascade").absolute()
        compress_run(finished.outcome.folder, export, Path("models/cascade"), False)
    assert not_for_a_signature(fuzz(shipped, tmp_path / "damaged", 8, 60, loader)) == []


@pytest.mark.slow
def test_the_program_ends_with_one_line_or_the_same_answer(shipped: Path, tmp_path: Path) -> None:
    dice = random.Random(9)
    expected = run_program(shipped)
    assert expected.returncode == 0
    for i in range(60):
        folder = shutil.copytree(shipped, tmp_path / str(i))
        kind = random_fault(dice, folder)
        if (
            "how_to_load.py" in kind or "command_line.py" in kind or "swap" in kind
        ):  # whoever changes the program decides what it does
            continue
        done = run_program(folder)
        if done.returncode:
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), kind
        else:
            assert done.stdout == expected.stdout or "re-hashed" in kind, kind


def run_program(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", str(folder / "how_to_load.py"), *TEXTS[:2]]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)

"""The wheel contains what a user needs and nothing else, and works outside the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "models" / "demo-onnx-int8"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = out.glob("hbt_toolkit-*.whl")
    zipfile.ZipFile(wheel).extractall(out / "site")
    return out / "site"


def test_wheel_contains_only_the_layers_and_the_api(unpacked: Path) -> None:
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"hbt.py", "toolkit", "exporters", "benchmarks"}
    assert (unpacked / "exporters" / "loaders" / "onnx.py").is_file()
    assert (unpacked / "exporters" / "ngram" / "sources" / "model.c").is_file()
    assert len(list((unpacked / "toolkit").rglob("model_card_template.md"))) == 1
    assert not list(unpacked.rglob("test_*"))


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["--help"], "verify"),
        (["data", "demo"], "complaint"),
        (["verify", str(PACKAGE)], "golden texts"),
        (["predict", str(PACKAGE), "ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে।"], "complaint"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_wheel_works_outside_the_repository(unpacked: Path, tmp_path: Path, words: list[str], output: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r}); import hbt; from toolkit import cli; "
        f"assert cli.__file__.startswith({str(unpacked)!r}); hbt.main()"
    )
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert output in done.stdout
    assert not list(tmp_path.iterdir())

"""`import hbt`: its public names, its import time, and that other folders with its module names are not imported."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hbt
from tests.helpers import Finished, tiny_recipe
from toolkit.utils.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "mlflow", "numpy", "onnxruntime", "sklearn", "click")


def python(*arguments: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [path, str(ROOT)]))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8")


def test_every_documented_name_exists() -> None:
    for name in hbt.__all__:
        assert getattr(hbt, name) is not None
    assert set(hbt.__all__) <= set(dir(hbt))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hbt.nothing  # type: ignore[attr-defined]


def test_importing_it_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"import hbt, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("kind", ["package", "module"])
def test_other_folders_of_the_same_names_are_not_imported(tmp_path: Path, kind: str) -> None:
    """In the working directory and on PYTHONPATH, before hbt itself."""
    for name in ("toolkit", "exporters", "benchmarks"):
        file = tmp_path / name / "__init__.py" if kind == "package" else tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise RuntimeError('a third-party file')")
    done = python("-m", "hbt", "--help", cwd=tmp_path, path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "compress" in done.stdout
    code = (
        "import hbt; print(hbt.Recipe().corpus.data); import exporters.registry, benchmarks; print(exporters.__file__)"
    )
    done = python("-c", code, cwd=tmp_path, path=str(tmp_path))
    assert done.stdout.splitlines() == ["demo", str(ROOT / "exporters" / "__init__.py")], done.stderr


def test_a_conflicting_package_that_was_imported_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "toolkit.py").write_text("")
    done = python("-c", "import toolkit, hbt", cwd=tmp_path, path=str(tmp_path))
    assert "another package named 'toolkit' is already imported" in done.stderr


def test_a_package_is_loaded_verified_and_used_on_a_file(at_home: Finished, tmp_path: Path) -> None:
    package = str(at_home.package)
    model = hbt.load(package, threads=1)
    assert model.predict_proba(["a", "b"]).shape == (2, 2)
    assert hbt.verify(package).problems == []
    out = tmp_path / "labeled.csv"
    rows = hbt.predict_file(package, "comments.csv", out, text_column="Comments")
    lines = out.read_text("utf-8").splitlines()
    assert len(lines) == rows + 1
    assert lines[0].endswith("predicted_label,probability,out_of_scope")
    with pytest.raises(InputError, match="exists"):
        hbt.predict_file(package, "comments.csv", out)
    assert hbt.predict_file(package, "comments.csv", out, force=True) == rows


def test_settings_have_the_names_of_the_options(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("[training]\nepochs = 3\n")
    recipe = hbt.read_recipe(tmp_path / "recipe.toml", folds=4, student="layers:2")
    assert (recipe.training.epochs, recipe.corpus.folds, recipe.distillation.student) == (3, 4, "layers:2")
    with pytest.raises(InputError, match="epoch: no such setting"):
        hbt.read_recipe(epoch=3)


def test_a_finished_run_is_summarized_compared_and_compressed(finished: Finished, copied: Path, tmp_path: Path) -> None:
    assert hbt.run(tiny_recipe()) == finished.outcome
    found = hbt.compare("runs/tiny/0-floor", "runs/tiny", margin=0.02)
    assert found.comparison.margin == 0.02
    made = hbt.compress("runs/tiny", tmp_path / "package", target="onnx-fp32")
    assert made.package == tmp_path / "package"
    assert json.loads((tmp_path / "package" / "manifest.json").read_text("utf-8"))["target"] == "onnx-fp32"
    with pytest.raises(InputError, match="--folds: runs/tiny is a run, which defines it"):
        hbt.compress("runs/tiny", tmp_path / "other", folds=3)
    with pytest.raises(InputError, match="maxdrop: no such setting"):
        hbt.compress("runs/tiny", tmp_path / "other", maxdrop=0.1)


def test_the_metrics_function_is_public() -> None:
    truth, scores = np.array([0, 1, 1, 0]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    found = hbt.calculate_metrics_with_threshold_exploration(truth, scores)
    assert found["macro_f1"] == found["macro_f1_th_0.4"] == 1


def write_key_pair(private: Path, public: Path) -> None:
    """Write the keys that the examples sign and verify with."""
    pytest.importorskip("model_signing", reason="the extra [sign] is not installed")
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private.write_bytes(key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.slow
def test_the_examples_of_the_documentation_run(copied: Path) -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    for name in set(hbt.__all__) - {"InputError", "NothingPasses", "Recipe", "__version__"}:
        assert f"hbt.{name}(" in code, name
    write_key_pair(Path("private.pem"), Path("public.pem"))
    exec(compile(code, "docs/api.md", "exec"), {})
    assert Path("labeled.csv").is_file()
    assert Path("bench").is_dir()

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.helpers import ODD_TEXTS, Finished, contents, rehash
from toolkit import package
from toolkit.stages.result import StageResult
from toolkit.utils.errors import InputError
from toolkit.utils.machine import describe_machine


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the package under another name and place."""
    return shutil.copytree(finished.package, tmp_path / "far" / "away")


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(file.read_text("utf-8"))
    change(value)
    file.write_text(json.dumps(value, ensure_ascii=False), "utf-8")
    if file.name != "manifest.json":
        rehash(file.parent)


def loader_of(folder: Path) -> ModuleType:
    """how_to_load.py of the package, imported as a user would."""
    spec = importlib.util.spec_from_file_location("how_to_load_of_a_package", folder / "how_to_load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        spec.loader.exec_module(module)
    return module


def outside(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder outside this project."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
    )


def test_the_files_of_a_package(finished: Finished) -> None:
    names = set(contents(finished.package))
    assert names == {
        "onnx/model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json", "how_to_load.py",
        "command_line.py", "requirements.txt", "README.md", "manifest.json",
        "calibration.svg", "scope.json",
    }  # fmt: skip


def test_an_unchanged_package_verifies(copied: Path) -> None:
    found = package.verify(copied)
    assert found.problems == []
    assert found.files == 10
    assert found.golden_texts >= 3
    assert found.largest_score_gap <= package.read_manifest(copied)["tolerance"] == package.GOLDEN_TOLERANCE


def test_golden_scores_are_probabilities_in_the_order_of_the_labels(finished: Finished) -> None:
    model = package.load(finished.package)
    assert model.labels == ("non_hate", "hate")
    for entry in package.read_manifest(finished.package)["golden"]:
        assert sum(entry["scores"]) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(model.predict_proba([entry["text"]])[0], entry["scores"], atol=1e-6)


def change_a_byte(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        held = bytearray((folder / name).read_bytes())
        held[len(held) // 2] ^= 1
        (folder / name).write_bytes(held)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def add(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")

    return damage


def other_golden_score(folder: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        scores = manifest["golden"][0]["scores"]
        scores[0], scores[1] = scores[0] + 0.01, scores[1] - 0.01

    rewrite(folder / "manifest.json", change)


def other_golden_label(folder: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        entry = manifest["golden"][-1]
        entry["label"] = {"hate": "non_hate", "non_hate": "hate"}[entry["label"]]

    rewrite(folder / "manifest.json", change)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (change_a_byte("onnx/model.onnx"), "onnx/model.onnx has changed"),
        (change_a_byte("tokenizer.json"), "tokenizer.json has changed"),
        (change_a_byte("how_to_load.py"), "how_to_load.py has changed"),
        (change_a_byte("README.md"), "README.md has changed"),
        (remove("requirements.txt"), "requirements.txt is missing"),
        (remove("onnx/model.onnx"), "onnx/model.onnx is missing"),
        (add("extra.txt"), "extra.txt is not in the manifest"),
        (add("deep/extra.bin"), "deep/extra.bin is not in the manifest"),
        (other_golden_score, "golden scores differ by up to 0.01 and 0 labels flip"),
        (other_golden_label, "and 1 labels flip"),
    ],
)
def test_changes_are_reported_as_problems(copied: Path, damage: Callable[[Path], None], problem: str) -> None:
    damage(copied)
    (found,) = package.verify(copied).problems
    assert problem in found
    assert "\n" not in found


@pytest.mark.parametrize("name", ["tokenizer.json", "onnx/model.onnx", "config.json"])
def test_loading_reports_a_missing_file(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(InputError, match=f"does not load: {name} is missing"):
        package.load(copied)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 2}', "schema 2, but this hbt supports 1"),
        ('{"schema": "1"}', "update hbt"),
        ("{}", "not a valid manifest"),
        ("[]", "not a valid manifest"),
        ("nothing", "not a valid manifest"),
        ("", "not a valid manifest"),
        (None, "not a package"),
    ],
)
@pytest.mark.parametrize("use", [package.load, package.verify, package.read_manifest])
def test_an_unreadable_manifest_is_reported_in_one_line(
    copied: Path, use: Callable[[Path], Any], text: str | None, message: str
) -> None:
    if text is None:
        (copied / "manifest.json").unlink()
    else:
        (copied / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        use(copied)
    assert "\n" not in str(caught.value)


def test_a_binary_manifest_is_reported_in_one_line(copied: Path) -> None:
    (copied / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a valid manifest"):
        package.read_manifest(copied)


def test_an_unknown_target_is_reported_by_name(copied: Path) -> None:
    rewrite(copied / "manifest.json", lambda manifest: manifest.update(target="onnx-int2"))
    with pytest.raises(InputError, match="onnx-int2"):
        package.load(copied)


def test_the_loader_runs_as_a_script_from_anywhere(copied: Path, tmp_path: Path) -> None:
    golden = package.read_manifest(copied)["golden"][:3]
    done = outside(tmp_path, str(copied / "how_to_load.py"), *(entry["text"] for entry in golden))
    assert done.returncode == 0, done.stderr
    for line, entry in zip(done.stdout.splitlines(), golden, strict=True):
        label, score, text = line.split("\t", 2)
        place = ("non_hate", "hate").index(label)
        assert (label, text) == (entry["label"], entry["text"])
        assert float(score) == pytest.approx(entry["scores"][place], abs=1e-3)


def test_the_loader_without_a_text_is_one_line(copied: Path, tmp_path: Path) -> None:
    done = outside(tmp_path, str(copied / "how_to_load.py"))
    assert done.returncode == 2
    assert done.stderr.startswith("give texts, or one of --file, --self-test and --bench; see --help")
    assert done.stderr.count("\n") == 1


def test_the_loader_can_be_imported_and_reproduces_the_golden_scores(copied: Path) -> None:
    model = loader_of(copied).load()
    for entry in package.read_manifest(copied)["golden"]:
        np.testing.assert_allclose(model.predict_proba([entry["text"]])[0], entry["scores"], atol=1e-3)
        assert model.predict([entry["text"]])[0][0] == entry["label"]


def test_the_packaged_loader_is_the_one_that_hbt_uses(finished: Finished) -> None:
    theirs, ours = loader_of(finished.package).load(finished.package), package.load(finished.package)
    assert theirs.predict_logits(ODD_TEXTS).tobytes() == ours.predict_logits(ODD_TEXTS).tobytes()


@pytest.mark.parametrize(
    "code", ["package.load(Path(sys.argv[1])).predict(['a'])", "package.verify(Path(sys.argv[1]))"]
)
def test_using_a_package_imports_neither_torch_nor_transformers(finished: Finished, code: str) -> None:
    heavy = "{'torch', 'transformers', 'optimum', 'sklearn', 'mlflow', 'pandas'}"
    script = (
        f"import sys; from pathlib import Path; from toolkit import package; {code}; print({heavy} & {{*sys.modules}})"
    )
    done = outside(Path(__file__).parents[2], "-c", script, str(finished.package))
    assert done.stdout.strip() == "set()", done.stderr


def test_the_packaged_loader_needs_only_its_requirements(finished: Finished, tmp_path: Path) -> None:
    script = "import sys; import how_to_load as m; m.load().predict(['a']); print(*sys.modules)"
    environment = {"PYTHONPATH": str(finished.package), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    used = {name.split(".")[0] for name in done.stdout.split()}
    assert {"onnxruntime", "tokenizers", "numpy"} <= used, done.stderr
    assert not used & {"torch", "transformers", "toolkit", "exporters", "benchmarks", "optimum", "onnx", "scipy"}
    checked, *lines = (finished.package / "requirements.txt").read_text("utf-8").splitlines()
    assert {line.split(">")[0] for line in lines} == {"onnxruntime", "tokenizers", "numpy"}
    versions = package.read_manifest(finished.package)["runtime"]["versions"]
    assert checked.split(" with ")[1] == " ".join(f"{name}=={number}" for name, number in versions.items())
    assert "+" not in checked


def test_the_threshold_from_validation_rows_is_what_the_package_uses(finished: Finished) -> None:
    student = StageResult.load(finished.run / "2-distillation")
    quantized = StageResult.load(finished.run / "4-export-onnx-int8")
    stored = json.loads((finished.package / "config.json").read_text("utf-8"))["threshold"]
    assert student.rule.threshold == student.validation_metrics["best_threshold"]
    assert stored == student.rule.threshold == quantized.rule.threshold == quantized.metrics["best_threshold"]
    assert package.load(finished.package).threshold == stored


def test_a_label_flips_exactly_at_the_threshold(copied: Path) -> None:
    text = "একটি মন্তব্য"
    probability = package.load(copied).predict_proba([text])[0, 1]
    for threshold, label in ((probability, "hate"), (np.nextafter(probability, np.float32(2)), "non_hate")):
        rewrite(copied / "config.json", lambda config, t=float(threshold): config.update(threshold=t))
        ((found, score),) = package.load(copied).predict([text])
        assert found == label
        assert score == pytest.approx(float(probability if label == "hate" else 1 - probability), abs=1e-6)
        assert loader_of(copied).load().predict([text])[0][0] == label


def test_offsets_decide_where_there_is_no_threshold(copied: Path) -> None:
    probability = package.load(copied).predict_proba(["একটি মন্তব্য"])[0].astype(float)
    even = float(np.log(probability[0] / probability[1]))  # the offset of the second label at which both are even
    for offset, label in ((even + 1e-4, "hate"), (even - 1e-4, "non_hate")):
        rewrite(copied / "config.json", lambda config, o=offset: config.update(threshold=None, offsets=[0.0, o]))
        assert package.load(copied).predict(["একটি মন্তব্য"])[0][0] == label
        assert loader_of(copied).load().predict(["একটি মন্তব্য"])[0][0] == label


def test_without_a_threshold_the_most_probable_label_is_predicted(copied: Path) -> None:
    rewrite(copied / "config.json", lambda config: config.update(threshold=None))
    model = package.load(copied)
    likelier = model.predict_proba(ODD_TEXTS).argmax(axis=1)
    assert [label for label, _ in model.predict(ODD_TEXTS)] == [model.labels[i] for i in likelier]


@pytest.mark.parametrize("texts", [[], ["a"], ODD_TEXTS])
def test_any_number_of_texts_is_scored(finished: Finished, texts: list[str]) -> None:
    model = package.load(finished.package)
    assert model.predict_proba(texts).shape == (len(texts), 2)
    assert len(model.predict(texts)) == len(texts)


def test_the_manifest_records_the_origin_of_the_package(finished: Finished) -> None:
    manifest = package.read_manifest(finished.package)
    recorded = json.loads((finished.run / "corpus.json").read_text("utf-8"))
    assert manifest["target"] == "onnx-int8"
    assert manifest["runtime"]["name"] == "onnxruntime"
    assert manifest["checked_on"] == [describe_machine().isa]
    assert manifest["this_cpu_only"] is False
    assert manifest["lineage"]["corpus_fingerprint"] == recorded["fingerprint"]
    assert manifest["lineage"]["recipe_sha256"] == finished.recipe.sha256()
    assert manifest["lineage"]["corpus_settings"]["folds"] == 2


def test_processors_are_recorded_once_and_the_package_still_verifies(copied: Path) -> None:
    package.record_processors(copied, ["Haswell (emulated)"])
    package.record_processors(copied, ["Haswell (emulated)", "Cortex-A72 (emulated)"])
    expected = [describe_machine().isa, "Haswell (emulated)", "Cortex-A72 (emulated)"]
    assert package.read_manifest(copied)["checked_on"] == expected
    assert package.verify(copied).problems == []


@pytest.mark.parametrize(
    ("this_cpu_only", "fix"), [(False, "on this kind of processor"), (True, "without --this-cpu-only")]
)
def test_other_scores_name_all_processors_and_the_fix(copied: Path, this_cpu_only: bool, fix: str) -> None:
    manifest = package.read_manifest(copied)
    low, high = manifest["golden"][0]["scores"]
    manifest["golden"][0]["scores"] = [low + 0.006, high - 0.006] if low < 0.5 else [low - 0.006, high + 0.006]
    changed = manifest | {"checked_on": ["A", "B"], "this_cpu_only": this_cpu_only}
    (copied / "manifest.json").write_text(json.dumps(changed), "utf-8")
    (problem,) = package.verify(copied).problems
    assert "golden scores differ by up to 0.006 and 0 labels flip" in problem
    assert problem.endswith(f"the package was checked on A, B: make it again {fix}")


def test_processors_of_a_signed_package_are_not_recorded(copied: Path) -> None:
    (copied / "model.sig").write_text("{}")
    before = contents(copied)
    with pytest.raises(InputError, match=r"is signed, .*; record processors before hbt sign"):
        package.record_processors(copied, ["Haswell (emulated)"])
    assert contents(copied) == before


def test_a_package_contains_no_local_paths(finished: Finished) -> None:
    for name, held in contents(finished.package).items():
        assert str(finished.home).encode() not in held, name


@pytest.mark.parametrize("place", ["run", "package"])
def test_no_folder_contains_pickles(finished: Finished, place: str) -> None:
    held = contents(getattr(finished, place))
    assert len(held) > 6
    for name, data in held.items():
        assert not name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".ckpt")), name
        assert not data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), name


def test_int8_scores_do_not_depend_on_batch_composition(finished: Finished) -> None:
    model = package.load(finished.package)
    alone = np.concatenate([model.predict_proba([text]) for text in ODD_TEXTS])
    np.testing.assert_array_equal(model.predict_proba(ODD_TEXTS), alone)

"""What must hold on transformers 4.57 with optimum, in an environment of its own: `make test-compatibility`.

optimum has no release for transformers 5 yet, and what ships must load there all the same.
"""

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import write_comments
from toolkit import package

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("optimum") is None, reason="needs the extra [optimum]"),
]

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo-onnx-int8"
TEXTS = ["ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে।", "খাবারটা মোটেও খারাপ না, আবার আসব।", "good", "?", "ভালো " * 100]
TINY_RUN = {
    "data": "comments.csv", "folds": 2, "model": "shape:2x32", "pooling": "mean", "max-length": 32,
    "epochs": 1, "student": "layers:1", "prune-method": "structured", "prune-sparsity": 0.3, "fine-tune-epochs": 1,
    "max-drop": 1, "search": "off", "name": "tiny", "pipeline": "baseline_kd_prune_quant", "output": "models/tiny-int8",
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 240 comments."""
    folder = tmp_path_factory.mktemp("workplace")
    write_comments(folder / "comments.csv", 240)
    return folder


@pytest.fixture(scope="module")
def run(workplace: Path) -> str:
    """What a run of all stages says: training, distillation, pruning, export."""
    words = (word for name, value in TINY_RUN.items() for word in (f"--{name}", str(value)))
    return hbt(workplace, "run", *words, "--force")  # after one epoch it is near chance


def hbt(workplace: Path, *words: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.cli", *words], cwd=workplace, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["demo-int8", "tiny-int8", "tiny-fp32"])
def shipped(request: pytest.FixtureRequest, workplace: Path) -> Path:
    """The committed package; that of the run; and one in single precision, made of the same run."""
    if request.param == "demo-int8":
        return DEMO
    request.getfixturevalue("run")
    folder = workplace / "models" / request.param
    if not folder.is_dir():
        hbt(workplace, "compress", "runs/tiny", "--target", "onnx-fp32", "--output", str(folder), "--force")
    return folder


def test_this_is_the_environment_that_is_meant() -> None:
    assert version("transformers").startswith("4.57.")


def test_a_run_trains_distils_prunes_and_exports_what_verifies(run: str, workplace: Path) -> None:
    stages = [folder.name for folder in sorted((workplace / "runs" / "tiny").iterdir()) if folder.name[0].isdigit()]
    assert len(stages) >= 4, stages
    assert "golden texts" in hbt(workplace, "verify", "models/tiny-int8")


def test_optimum_loads_a_package_and_gives_its_scores(shipped: Path) -> None:
    import torch
    from optimum.onnxruntime import ORTModelForSequenceClassification

    ours = package.load(shipped)
    theirs: Any = ORTModelForSequenceClassification.from_pretrained(shipped)
    assert tuple(theirs.config.id2label[i] for i in range(theirs.config.num_labels)) == ours.labels
    for text in TEXTS:
        ids = torch.tensor([ours.tokenizer.encode(text).ids])  # type: ignore[attr-defined]
        logits = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        np.testing.assert_allclose(logits.softmax(-1).numpy(), ours.predict_proba([text]), atol=1e-5)


def test_the_tokenizer_and_the_pipeline_of_transformers_need_no_other_file(run: str, workplace: Path) -> None:
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    folder = workplace / "models" / "tiny-int8"
    ours, tokenizer = package.load(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == 32
    for text in TEXTS:
        assert tokenizer(text, truncation=True)["input_ids"] == ours.tokenizer.encode(text).ids  # type: ignore[attr-defined]
    model: Any = ORTModelForSequenceClassification.from_pretrained(folder)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    found = [
        {each["label"]: each["score"] for each in scores} for scores in classify(TEXTS, truncation=True, top_k=None)
    ]
    np.testing.assert_allclose(
        [[scores[label] for label in ours.labels] for scores in found], ours.predict_proba(TEXTS), atol=1e-5
    )

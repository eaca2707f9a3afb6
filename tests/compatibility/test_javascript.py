"""Packages run in transformers.js and onnxruntime-web, as they are.

Needs Node and headless Chromium. `make test-javascript` installs the npm packages and runs this file.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.runtimes.__main__ import HERE, run
from exporters.registry import LoadedArtifact, exporter
from tests.exporters.ngram.test_graph import package_of, student
from tests.helpers import ODD_TEXTS, evidence_of, written
from toolkit.data.corpus import Corpus
from toolkit.modeling.classifier import Classifier

MODULES = os.environ.get("HBT_NODE_MODULES", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs Node"),
    pytest.mark.skipif(
        not (Path(MODULES) / "@huggingface" / "transformers").is_dir(),
        reason="run make test-javascript: HBT_NODE_MODULES names no folder with @huggingface/transformers",
    ),
]
TEXTS = [text for i, text in enumerate(ODD_TEXTS) if i not in (4, 6, 7)]
"""Without one that is blank and two that transformers.js encodes otherwise: docs/package.md says why."""
ARGUMENTS = [MODULES, "PACKAGE", "TEXTS", "OUT"]


@pytest.fixture(params=["transformer", "ngram"])
def shipped(request: pytest.FixtureRequest, learned: Classifier, toy: Corpus, tmp_path: Path) -> Path:
    """A package folder without model card and manifest."""
    folder = tmp_path / "package"
    if request.param == "ngram":
        return package_of(student(), "onnx-int8", folder)
    written("onnx-fp32", learned, evidence_of(toy, learned.rule), folder, search="off")
    return folder


@pytest.fixture
def own(shipped: Path) -> LoadedArtifact:
    return exporter("onnx-int8").load(shipped, threads=1)


def test_transformers_js_in_node_gives_the_scores_of_the_loader(
    shipped: Path, own: LoadedArtifact, tmp_path: Path
) -> None:
    found = run("node", ["node", str(HERE / "node.mjs"), *ARGUMENTS], shipped, TEXTS, tmp_path)
    np.testing.assert_allclose(found.probabilities, own.predict_proba(TEXTS), atol=1e-5)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("way", ["transformers", "onnxruntime"])
def test_a_browser_gives_the_scores_of_the_loader(way: str, shipped: Path, own: LoadedArtifact, tmp_path: Path) -> None:
    command = ["node", str(HERE / "chromium.mjs"), *ARGUMENTS, way, shutil.which("chromium") or ""]
    found = run(way, command, shipped, TEXTS, tmp_path)
    np.testing.assert_allclose(found.probabilities, own.predict_proba(TEXTS), atol=1e-3)

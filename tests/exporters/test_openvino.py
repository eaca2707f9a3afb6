import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from exporters.onnx_fp32 import export_graph
from exporters.openvino_int8 import EXPORTER, MODEL_FILE, _controlled, _Rows, quiet_nncf
from exporters.registry import NOTHING, Candidate, Evidence, LoadedArtifact, exporter
from tests.helpers import ODD_TEXTS
from toolkit.config.settings import ExportSettings, ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.evaluation.metrics import macro_f1, softmax
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.ngram import NgramConfig, NgramNetwork
from toolkit.modeling.tokenizer import encode, save_tokenizer
from toolkit.package import write_loading_files
from toolkit.utils.errors import InputError

FIRST, CONTROLLED = 0, 1
# Not pytest.importorskip: importing openvino directly would send telemetry.
if missing := EXPORTER.available():
    pytest.skip(missing, allow_module_level=True)


def evidence_of(made: Classifier, toy: Corpus) -> Evidence:
    rows = toy.rows("validation")
    return Evidence(toy.take(toy.rows("train"))[:32], toy.take(rows), toy.labels[rows], made.rule or DecisionRule())


def candidates(
    made: Classifier, toy: Corpus, reference: Path, settings: ExportSettings | None = None
) -> list[Candidate]:
    return EXPORTER.candidates(made, evidence_of(made, toy), settings or ExportSettings(), reference)


def reference_of(made: Classifier, folder: Path) -> Path:
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    export_graph(made, folder / "onnx" / "model.onnx")
    return folder


def packaged(made: Classifier, candidate: Candidate, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    candidate.write(folder, NOTHING)
    save_tokenizer(made.tokenizer, made.pad_id, folder / "tokenizer.json")
    write_loading_files(folder, made, made.rule or DecisionRule(), EXPORTER)
    return folder


@pytest.fixture(scope="module")
def wide(toy: Corpus) -> Classifier:
    """Two layers, so wide that matrices dominate the size."""
    settings = ModelSettings(model="shape:2x128", pooling="mean", max_length=32)
    return build_classifier(settings, toy.label_names, toy.texts, seed=0)


@pytest.fixture(scope="module")
def reference(learned: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference_of(learned, tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def folder(learned: Classifier, toy: Corpus, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged(learned, candidates(learned, toy, reference)[FIRST], tmp_path_factory.mktemp("openvino"))


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedArtifact:
    return EXPORTER.load(folder, threads=1)


def test_the_registry_returns_this_target() -> None:
    assert exporter("openvino-int8") is EXPORTER
    assert EXPORTER.available() is None


def test_checking_availability_imports_neither_runtime() -> None:
    code = (
        "import sys; from exporters.registry import exporter; exporter('openvino-int8').available();"
        "print({'openvino', 'nncf', 'torch', 'onnxruntime'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_logits_are_near_those_of_torch(learned: Classifier, toy: Corpus, model: LoadedArtifact) -> None:
    texts = toy.take(toy.rows("validation"))
    ours = learned.predict_logits(texts, 1)
    gap = np.abs(model.predict_logits(texts) - ours)
    assert gap.mean() < 0.03 * np.abs(ours).mean()
    assert gap.max() < 0.1 * np.abs(ours).max()


def test_labels_agree_with_torch(learned: Classifier, toy: Corpus, model: LoadedArtifact) -> None:
    ours = learned.rule.predict(learned.predict_proba(toy.texts))
    names = [name for name, _ in model.predict(toy.texts)]
    assert np.mean([learned.labels[i] == name for i, name in zip(ours, names, strict=True)]) >= 0.99


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_texts_are_scored(learned: Classifier, model: LoadedArtifact, text: str) -> None:
    found = model.predict_proba([text])
    assert found.shape == (1, 2)
    np.testing.assert_allclose(found, learned.predict_proba([text]), atol=0.1)


def test_predictions_do_not_depend_on_batch_composition(toy: Corpus, model: LoadedArtifact) -> None:
    texts = [*ODD_TEXTS, *toy.texts[:22]]
    alone, together = model.predict_logits(texts, 1), model.predict_logits(texts, 8)
    assert np.abs(alone - together).max() < 1e-3


def test_scores_do_not_depend_on_lengths_scored_in_between(model: LoadedArtifact) -> None:
    first = model.predict_logits(["sea"])
    for text in ODD_TEXTS:
        model.predict_logits([text])
    np.testing.assert_array_equal(model.predict_logits(["sea"]), first)


def test_a_model_can_be_shared_between_threads(model: LoadedArtifact) -> None:
    texts = ["sea", "sun number 7 of the made-up texts"]
    expected = [model.predict_logits([text]) for text in texts]
    wrong: list[int] = []

    def ask(i: int) -> None:
        for _ in range(50):
            if not np.array_equal(model.predict_logits([texts[i]]), expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=ask, args=(i % 2,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_matrices_and_embeddings_are_a_quarter_of_the_size(wide: Classifier, toy: Corpus, tmp_path: Path) -> None:
    reference = reference_of(wide, tmp_path / "single")
    made = packaged(wide, candidates(wide, toy, reference, ExportSettings(search="off"))[FIRST], tmp_path / "made")
    weights = (made / "model.bin").stat().st_size
    assert weights < 0.3 * (reference / "onnx" / "model.onnx").stat().st_size
    assert np.isfinite(EXPORTER.load(made).predict_logits(ODD_TEXTS)).all()


@pytest.mark.parametrize(("search", "names"), [("off", 1), ("fast", 2), ("full", 2)])
def test_without_a_search_there_is_one_candidate(learned: Classifier, toy: Corpus, search: str, names: int) -> None:
    settings = ExportSettings(search=search)  # type: ignore[arg-type]
    assert len(candidates(learned, toy, Path("nowhere"), settings)) == names


def test_accuracy_control_keeps_to_max_drop(
    learned: Classifier, toy: Corpus, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ExportSettings(max_drop=0.0)
    made = packaged(learned, candidates(learned, toy, reference, settings)[CONTROLLED], tmp_path / "made")
    evidence = evidence_of(learned, toy)

    def score(logits: np.ndarray) -> float:
        return macro_f1(evidence.labels, evidence.rule.predict(softmax(logits)), 2)

    ours = score(learned.predict_logits(evidence.validation))
    assert score(EXPORTER.load(made).predict_logits(evidence.validation)) >= ours
    assert capsys.readouterr().out == "", "nncf prints"


@pytest.mark.slow
def test_accuracy_control_reverts_costly_operations(learned: Classifier, toy: Corpus, reference: Path) -> None:
    texts = toy.take(toy.rows("validation"))
    probabilities = learned.predict_proba(texts, 1)[:, 1]
    hardest = float(np.median(probabilities))  # half of the rows are near the threshold, so int8 flips some
    truth = (probabilities >= hardest).astype(np.int64)
    rows = _Rows(encode(learned.tokenizer, texts), truth, 2, DecisionRule(hardest))
    calibration = encode(learned.tokenizer, ["sea"])  # ranges from one text are bad ranges
    _, openvino = quiet_nncf()

    def score(max_drop: float) -> float:
        graph = _controlled(reference, calibration, rows, max_drop)
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        return rows.macro_f1(openvino.Core().compile_model(graph, "CPU", options), range(len(texts)))[0]

    careless, careful = score(1.0), score(0.02)
    assert careless < 0.98 <= careful


def test_an_ngram_student_is_refused_in_one_line(learned: Classifier, toy: Corpus) -> None:
    network = NgramNetwork(NgramConfig(rows=8, outputs=1))
    student = Classifier(network, learned.tokenizer, learned.pad_id, learned.labels)
    with pytest.raises(InputError, match="no matrices to quantize; use --target onnx-int8"):
        candidates(student, toy, Path("nowhere"))


def in_a_process_of_its_own(code: str, home: Path, **extra: str) -> str:
    """Return the output of `code`, with its own home folder and without environment variables of tests or CI."""
    hidden = ("CI", "NNCF_CI", "NNCF_DEV", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST")
    own = {name: value for name, value in os.environ.items() if name not in hidden}
    found = subprocess.run(
        [sys.executable, "-c", code], env=own | {"HOME": str(home)} | extra, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


NO_NETWORK = """
import socket, sys
def refuse(*_): print("asks for the network"); raise OSError
socket.socket.connect = socket.getaddrinfo = refuse
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


def test_the_exporter_switches_telemetry_off(home: Path) -> None:
    code = f"""{NO_NETWORK}
from exporters.openvino_int8 import quiet_nncf
nncf, openvino = quiet_nncf()
from nncf.telemetry.wrapper import NNCFTelemetry, telemetry
from openvino.tools.ovc.telemetry_utils import tm
left = [name for name in sys.modules if name.startswith("openvino_telemetry.")]
print(isinstance(telemetry, NNCFTelemetry), tm.__name__, left)
"""
    assert in_a_process_of_its_own(code, home) == "False openvino.tools.ovc.telemetry_stub []\n"
    assert not list(home.iterdir())


def test_a_package_loads_without_torch_and_telemetry(folder: Path, home: Path, model: LoadedArtifact) -> None:
    code = f"""{NO_NETWORK}
sys.path = [{str(folder)!r}] + [entry for entry in sys.path if entry not in ("", {str(Path.cwd())!r})]
for name in ("torch", "transformers", "onnxruntime", "nncf", "toolkit", "exporters"):
    sys.modules[name] = None
from how_to_load import load
import json; print(json.dumps(load(threads=1, verify=False).predict_proba(["sea"])[0].tolist()))
"""
    printed = in_a_process_of_its_own(code, home)
    np.testing.assert_allclose(json.loads(printed), model.predict_proba(["sea"])[0], atol=1e-6)
    assert not list(home.iterdir())


def test_the_files_of_a_candidate_are_its_graph_and_its_weights(
    learned: Classifier, toy: Corpus, reference: Path, tmp_path: Path
) -> None:
    found = candidates(learned, toy, reference)[FIRST].write(tmp_path, NOTHING)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", MODEL_FILE]
    assert found["int8_activations"] > 0

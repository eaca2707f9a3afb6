import copy
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from exporters.registry import Candidate, Evidence, LoadedArtifact, exporter
from exporters.torch_int8 import EXPORTER, quantize
from tests.helpers import ODD_TEXTS
from tests.toolkit.modeling.test_architecture import KINDS, LENGTH, network_of
from toolkit.config.settings import ExportSettings, ModelSettings
from toolkit.data.corpus import Corpus
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.architecture import sizes
from toolkit.modeling.classifier import Classifier, SequenceClassifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.ngram import NgramConfig, NgramNetwork
from toolkit.modeling.surgery import Kept, cut
from toolkit.modeling.tokenizer import PAD, save_tokenizer, train_tokenizer
from toolkit.package import golden_scores, write_loading_files, write_manifest
from toolkit.utils.errors import InputError

COLUMN, MATRIX = 0, 1
NOWHERE = Path("nowhere")


@pytest.fixture(autouse=True)
def _threads_as_they_were() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def wide(toy: Corpus) -> Classifier:
    """Two layers, so wide that matrices dominate the size."""
    return build_classifier(ModelSettings(model="shape:2x128", max_length=32), toy.label_names, toy.texts, seed=0)


@pytest.fixture(scope="module")
def packaged(learned: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(learned, tmp_path_factory.mktemp("packaged"))


def candidates(made: Classifier) -> list[Candidate]:
    evidence = Evidence((), (), np.empty(0, dtype=np.int64), made.rule or DecisionRule())
    return EXPORTER.candidates(made, evidence, ExportSettings(), NOWHERE)


def package(made: Classifier, folder: Path, candidate: int = COLUMN, in_float: frozenset[str] = frozenset()) -> Path:
    """Write a loadable package to `folder` and return it."""
    candidates(made)[candidate].write(folder, in_float)
    save_tokenizer(made.tokenizer, made.pad_id, folder / "tokenizer.json")
    write_loading_files(folder, made, made.rule or DecisionRule(), exporter(EXPORTER.name))
    return folder


def loaded(made: Classifier, folder: Path, candidate: int = COLUMN, in_float: frozenset[str] = frozenset()) -> Any:
    return EXPORTER.load(package(made, folder, candidate, in_float))


def random(kind: str, toy: Corpus, pooling: str = "mean", **changed: Any) -> Classifier:
    """Random weights and a head that tells texts apart, in the names of an architecture."""
    tokenizer = train_tokenizer(toy.texts, LENGTH)
    pad_id = tokenizer.token_to_id(PAD)
    network = network_of(kind, tokenizer.get_vocab_size(), pad_id, **changed)
    nn.init.normal_(network.head.weight)
    network.pooling = pooling
    return Classifier(network, tokenizer, pad_id, ("a", "b"))


def imported(kind: str, toy: Corpus) -> Classifier:
    tokenizer = train_tokenizer(toy.texts, LENGTH)
    pad_id = tokenizer.token_to_id(PAD)
    given: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": pad_id, "max_position_embeddings": LENGTH + 2,
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "initializer_range": 0.3, "num_labels": 3,
    }  # fmt: skip
    if kind == "deberta-v2":  # reads the table of its relative positions
        given |= {"relative_attention": True, "position_buckets": 32, "pos_att_type": ["p2c", "c2p"]}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **given))
    return Classifier(SequenceClassifier(model).eval(), tokenizer, pad_id, ("calm", "glad", "sad"))


def by_hand(made: Classifier, folder: Path, seven_bits: bool) -> Classifier:
    """The stored weights in single precision, with activations rounded as documented by PyTorch."""
    network: Any = copy.deepcopy(made.network)
    stored = load_file(folder / "model.safetensors")
    steps = 127 if seven_bits else 255

    def rounded(_: nn.Module, given: tuple[torch.Tensor]) -> torch.Tensor:
        x = given[0]
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        scale = (high - low) / steps
        zero = round(-low / scale)
        return ((x / scale).round() + zero).clamp(0, steps).sub(zero).mul(scale)

    for name in [key.removesuffix(".scale") for key in stored if key.endswith(".scale")]:
        module = network.get_submodule(name)
        module.weight.data = stored[f"{name}.weight"].float() * stored[f"{name}.scale"].reshape(-1, 1)
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(rounded)
    return replace(made, network=network)


def relative_gap(found: np.ndarray, expected: np.ndarray) -> float:
    """How far logits are from those expected, in units of how much they move from text to text."""
    return float(np.abs(found - expected).max() / expected.std(axis=0).max())


def one_by_one(made: Classifier | LoadedArtifact, texts: list[str]) -> np.ndarray:
    return np.concatenate([made.predict_logits([text]) for text in texts])


def test_the_target_is_in_the_registry() -> None:
    assert exporter("torch-int8") is EXPORTER
    assert EXPORTER.available() is None
    assert EXPORTER.distributions[0] == "torch"


@pytest.mark.parametrize("candidate", [COLUMN, MATRIX])
def test_logits_match_a_reference_implementation_with_the_stored_weights(
    learned: Classifier, tmp_path: Path, candidate: int
) -> None:
    model = loaded(learned, tmp_path, candidate)
    seven_bits = not torch.cpu._is_vnni_supported() and torch.backends.quantized.engine != "qnnpack"
    expected = by_hand(learned, tmp_path, seven_bits)
    assert relative_gap(one_by_one(model, ODD_TEXTS), one_by_one(expected, ODD_TEXTS)) < 0.001


@pytest.mark.parametrize("candidate", [COLUMN, MATRIX])
def test_logits_are_near_those_of_quantize_dynamic(learned: Classifier, tmp_path: Path, candidate: int) -> None:
    from torch.ao import quantization

    how = [quantization.per_channel_dynamic_qconfig, quantization.default_dynamic_qconfig][candidate]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: Any = quantization.quantize_dynamic(copy.deepcopy(learned.network), {nn.Linear: how})
    expected = one_by_one(replace(learned, network=network), ODD_TEXTS)
    assert relative_gap(one_by_one(loaded(learned, tmp_path, candidate), ODD_TEXTS), expected) < 0.1


def test_labels_are_those_of_the_classifier(learned: Classifier, packaged: Path, toy: Corpus) -> None:
    assert learned.threshold is not None
    texts = toy.texts[:60]
    second = learned.predict_proba(texts)[:, 1] >= learned.threshold
    assert [label for label, _ in EXPORTER.load(packaged).predict(texts)] == [learned.labels[int(i)] for i in second]


def test_per_channel_scales_have_a_smaller_error_than_per_tensor() -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 30) * torch.logspace(-2, 1, 40)[:, None]
    gap = []
    for by_row in (True, False):
        small, scale = quantize(weight, by_row)
        assert small.dtype == torch.int8
        assert scale.shape == ((40,) if by_row else (1,))
        error = (small.float() * scale[:, None] - weight).abs()
        assert bool((error <= scale[:, None] * 0.5001).all())
        gap.append(float(error.mean()))
    assert gap[0] < gap[1] / 2


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-30])
def test_a_constant_matrix_is_restored(value: float) -> None:
    small, scale = quantize(torch.full((3, 4), value), by_row=True)
    torch.testing.assert_close(small.float() * scale[:, None], torch.full((3, 4), value), rtol=1e-5, atol=0)


@pytest.mark.parametrize("candidate", [COLUMN, MATRIX])
def test_each_row_of_a_table_is_within_half_a_step_of_its_scale(
    wide: Classifier, tmp_path: Path, candidate: int
) -> None:
    words = "encoder.embeddings.word_embeddings"
    candidates(wide)[candidate].write(tmp_path, frozenset())
    stored = load_file(tmp_path / "model.safetensors")
    table = wide.network.get_parameter(f"{words}.weight").detach()
    step = table.abs().amax(dim=1, keepdim=True) / 127
    error = (stored[f"{words}.weight"].float() * stored[f"{words}.scale"][:, None] - table).abs()
    assert bool((error <= step * 0.5001).all())


def test_with_every_part_in_float_the_classifier_is_restored(learned: Classifier, tmp_path: Path) -> None:
    parts = frozenset(candidates(learned)[COLUMN].parts)
    model = loaded(learned, tmp_path, in_float=parts)
    np.testing.assert_allclose(model.predict_logits(ODD_TEXTS), learned.predict_logits(ODD_TEXTS), atol=1e-4)
    assert json.loads((tmp_path / "network.json").read_text("utf-8"))["int8"] == []


def test_only_parts_in_float_keep_their_weights(wide: Classifier, tmp_path: Path) -> None:
    parts = candidates(wide)[COLUMN].parts
    tables = {name for name in parts if isinstance(wide.network.get_submodule(name), nn.Embedding)}
    assert tables
    assert "head" not in parts
    kept = frozenset({parts[-1], *tables})
    candidates(wide)[COLUMN].write(tmp_path, kept)
    stored = load_file(tmp_path / "model.safetensors")
    for name in parts:
        weight = stored[f"{name}.weight"]
        assert weight.dtype == (torch.float32 if name in kept else torch.int8)
        assert (f"{name}.scale" in stored) == (name not in kept)
        if name in kept:
            assert torch.equal(weight, wide.network.get_parameter(f"{name}.weight"))


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_pooling_is_that_of_the_classifier(toy: Corpus, tmp_path: Path, pooling: str, batch_size: int) -> None:
    made = random("bert", toy, pooling)
    parts = frozenset(candidates(made)[COLUMN].parts)
    found = loaded(made, tmp_path, in_float=parts).predict_logits(ODD_TEXTS, batch_size)
    np.testing.assert_allclose(found, made.predict_logits(ODD_TEXTS), atol=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "deberta-v2"])
@pytest.mark.parametrize("some_in_float", [False, True])
def test_a_pruned_network_keeps_its_sizes(kind: str, toy: Corpus, tmp_path: Path, some_in_float: bool) -> None:
    made = random(kind, toy)
    if kind != "deberta-v2":  # which cannot be pruned
        depth = len(sizes(made.network))
        kept = [Kept((0, 2), tuple(range(40))), None, Kept((0, 1, 3), tuple(range(9, 64)))]
        cut(made.network, kept if depth == 3 else kept[:1])
    parts = candidates(made)[COLUMN].parts
    in_float = frozenset(parts if some_in_float else ())
    model = loaded(made, tmp_path, in_float=in_float)
    gap = relative_gap(one_by_one(model, ODD_TEXTS), one_by_one(made, ODD_TEXTS))
    assert gap < (1e-3 if some_in_float else 0.25)  # activations have seven bits on x86 without VNNI


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("all_in_float", [False, True])
def test_an_imported_classifier_has_its_own_head(kind: str, toy: Corpus, tmp_path: Path, all_in_float: bool) -> None:
    made = imported(kind, toy)
    parts = candidates(made)[COLUMN].parts
    assert len(parts) > 8
    model = loaded(made, tmp_path, in_float=frozenset(parts if all_in_float else ()))
    assert model.labels == made.labels
    found, expected = one_by_one(model, ODD_TEXTS), one_by_one(made, ODD_TEXTS)
    assert found.shape == (len(ODD_TEXTS), 3)
    assert relative_gap(found, expected) < (1e-3 if all_in_float else 0.3)


def test_the_file_is_at_most_a_third_of_single_precision(wide: Classifier, tmp_path: Path) -> None:
    single = {name: tensor.clone() for name, tensor in wide.network.state_dict().items()}
    save_file(single, tmp_path / "single.safetensors")
    for candidate in (COLUMN, MATRIX):
        known = candidates(wide)[candidate].write(tmp_path, frozenset())
        small = (tmp_path / EXPORTER.file).stat().st_size
        assert 3 * small < (tmp_path / "single.safetensors").stat().st_size
        assert known["int8_weights"] + known["float_weights"] == wide.parameters
        assert known["per_channel"] == (candidate == COLUMN)


def test_nothing_in_the_folder_is_pickled(packaged: Path) -> None:
    names = {file.name for file in packaged.iterdir()}
    assert names == {
        "model.safetensors", "network.json", "config.json", "tokenizer.json",
        "how_to_load.py", "command_line.py", "requirements.txt",
    }  # fmt: skip
    assert load_file(packaged / "model.safetensors")
    for name in names - {"model.safetensors"}:
        (packaged / name).read_text("utf-8")
    code = (packaged / "how_to_load.py").read_text("utf-8")
    assert "torch.load(" not in code
    assert "import pickle" not in code
    lines = (packaged / "requirements.txt").read_text("utf-8").splitlines()[1:]
    assert [line.split(">")[0] for line in lines] == list(EXPORTER.distributions)


@pytest.mark.parametrize("key", ["auto_map", "attn_implementation", "_attn_implementation"])
def test_a_configuration_cannot_name_code(packaged: Path, learned: Classifier, tmp_path: Path, key: str) -> None:
    folder = package(learned, tmp_path)
    built = json.loads((folder / "network.json").read_text("utf-8"))
    assert key not in built["config"]
    built["config"][key] = {"AutoModel": "evil--code.Model"} if key == "auto_map" else "evil/kernel"
    (folder / "network.json").write_text(json.dumps(built), "utf-8")
    expected = EXPORTER.load(packaged).predict_logits(ODD_TEXTS)
    assert EXPORTER.load(folder).predict_logits(ODD_TEXTS).tobytes() == expected.tobytes()


@pytest.mark.parametrize("gone", ["head.bias", "encoder.embeddings.position_ids"])
def test_a_file_with_missing_tensors_does_not_load(learned: Classifier, tmp_path: Path, gone: str) -> None:
    folder = package(learned, tmp_path)
    stored = load_file(folder / "model.safetensors")
    del stored[gone]
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"lacks {gone}"):
        EXPORTER.load(folder)


def test_two_writes_are_bit_identical(learned: Classifier, packaged: Path, tmp_path: Path) -> None:
    again = package(learned, tmp_path)
    for file in packaged.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()


def test_writing_does_not_change_the_classifier(wide: Classifier, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in wide.network.state_dict().items()}
    candidates(wide)[MATRIX].write(tmp_path, frozenset())
    after = wide.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_an_ngram_student_is_refused_in_one_line(learned: Classifier) -> None:
    made = replace(learned, network=NgramNetwork(NgramConfig(8, 1)))
    with pytest.raises(
        InputError, match=r"^--target torch-int8: an ngram student has no linear layers; use --target onnx-int8$"
    ):
        candidates(made)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_set(packaged: Path, threads: int) -> None:
    torch.set_num_threads(3)
    EXPORTER.load(packaged)
    assert torch.get_num_threads() == 3
    EXPORTER.load(packaged, threads)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_the_folder_works_without_this_project(packaged: Path, tmp_path: Path) -> None:
    texts = ["sun number 7", "the sea"]
    program = (
        "import importlib.util, json, sys\n"
        "spec = importlib.util.spec_from_file_location('how_to_load', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "answer = module.load(verify=False).predict(sys.argv[2:])\n"
        "assert not {'toolkit', 'exporters', 'onnxruntime', 'openvino'} & set(sys.modules), 'imports too much'\n"
        "print(json.dumps(answer))\n"
    )
    # -I still finds this project where it is installed in editable form, so the program looks at what it imported.
    command = [sys.executable, "-I", "-c", program, str(packaged / "how_to_load.py"), *texts]
    found = subprocess.run(command, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    for (label, score), (own_label, own_score) in zip(
        json.loads(found.stdout), EXPORTER.load(packaged).predict(texts), strict=True
    ):
        assert label == own_label
        assert score == pytest.approx(own_score, abs=1e-5)


@pytest.mark.slow
def test_the_loader_is_a_program(learned: Classifier, tmp_path: Path) -> None:
    folder = package(learned, tmp_path)
    write_manifest(folder, EXPORTER, "some processor", {}, golden_scores(EXPORTER.load(folder), ["sun"]))
    command = [sys.executable, "-P", str(folder / "how_to_load.py"), "sun number 7"]
    found = subprocess.run(command, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("sun\t")

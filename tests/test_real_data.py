"""The real encoder on real comments, if they are next to the checkout. Messages must contain no text of them."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from exporters.onnx_fp32 import export_graph, largest_logit_gap
from toolkit.config.settings import CorpusSettings, ModelSettings
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.data.normalization import normalize
from toolkit.modeling.classifier import Classifier, load_classifier, save_classifier
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.students import build_student
from toolkit.modeling.tokenizer import encode, read_tokenizer, save_tokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared"
COMMENTS, ENCODER = SHARED / "data" / "bangla_hate.csv", SHARED / "models" / "me5-small-bn"

pytestmark = pytest.mark.skipif(
    not (COMMENTS.is_file() and ENCODER.is_dir()), reason=f"needs {COMMENTS} and {ENCODER}, which are not committed"
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus(CorpusSettings(data=str(COMMENTS)))


@pytest.fixture(scope="module")
def texts(corpus: Corpus) -> list[str]:
    """32 test rows, from the shortest to the longest."""
    rows = sorted(corpus.take(corpus.rows("test")), key=len)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, 32).astype(int)]


@pytest.fixture(scope="module")
def encoder(corpus: Corpus) -> Classifier:
    settings = ModelSettings(model=str(ENCODER), pooling="mean")
    return build_classifier(settings, corpus.label_names, [], seed=0)


def test_the_encoder_has_the_expected_size(encoder: Classifier) -> None:
    config = encoder.network.config
    assert (config.num_hidden_layers, config.hidden_size) == (12, 384)
    assert 27e6 < encoder.parameters < 28e6
    assert encoder.max_length == 128


def test_the_normalizer_is_saved_in_the_tokenizer_file(encoder: Classifier, corpus: Corpus, tmp_path: Path) -> None:
    save_tokenizer(encoder.tokenizer, encoder.pad_id, tmp_path / "tokenizer.json")
    back, pad_id = read_tokenizer(tmp_path / "tokenizer.json")
    same = encode(back, corpus.texts) == encode(encoder.tokenizer, corpus.texts)
    assert same
    assert (pad_id, back.token_to_id(back.id_to_token(pad_id))) == (encoder.pad_id, encoder.pad_id)


def test_a_normalized_text_has_the_same_tokens(encoder: Classifier, corpus: Corpus) -> None:
    normalized = [normalize(text) for text in corpus.texts]
    same = encode(encoder.tokenizer, normalized) == encode(encoder.tokenizer, corpus.texts)
    assert same
    changed = sum(a != b for a, b in zip(normalized, corpus.texts, strict=True))
    assert changed > 0.3 * len(normalized)


def test_without_the_normalizer_tokens_depend_on_the_encoding_of_letters(encoder: Classifier, corpus: Corpus) -> None:
    """Otherwise the tests above would pass without the normalizer."""
    bare = Tokenizer.from_file(str(ENCODER / "tokenizer.json"))
    bare.no_padding()
    bare.enable_truncation(128)
    differ = sum(
        a != b for a, b in zip(encode(bare, corpus.texts), encode(encoder.tokenizer, corpus.texts), strict=True)
    )
    assert differ > 100


@pytest.mark.slow
def test_the_real_encoder_gives_the_same_logits_after_saving(
    encoder: Classifier, texts: list[str], tmp_path: Path
) -> None:
    save_classifier(encoder, tmp_path)
    same = load_classifier(tmp_path).predict_logits(texts).tobytes() == encoder.predict_logits(texts).tobytes()
    assert same


@pytest.mark.slow
def test_the_onnx_graph_has_the_logits_of_torch(encoder: Classifier, texts: list[str], tmp_path: Path) -> None:
    export_graph(encoder, tmp_path / "model.onnx")
    assert largest_logit_gap(encoder, texts, tmp_path / "model.onnx") < 1e-4


def test_four_layers_are_a_working_student(encoder: Classifier, texts: list[str]) -> None:
    student = build_student("layers:4", encoder, ModelSettings(pooling="mean"), [], seed=0)
    assert student.network.config.num_hidden_layers == 4
    assert 12e6 < student.parameters < 15e6
    assert np.isfinite(student.predict_logits(texts)).all()

"""Vocabulary trimming for all kinds of tokenizers and position ids, and for a real encoder."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from tests.helpers import ODD_TEXTS
from toolkit.config.settings import ModelSettings
from toolkit.data.normalization import with_normalizer
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling import vocabulary_trimming
from toolkit.modeling.classifier import (
    Classifier,
    PooledClassifier,
    SequenceClassifier,
    load_classifier,
    save_classifier,
)
from toolkit.modeling.encoders import build_classifier
from toolkit.modeling.vocabulary_trimming import Trimming, trim_vocabulary
from toolkit.utils.errors import InputError

WORDS = ("house", "houses", "garden", "boats", "sea")
MORE = [f"{WORDS[i % 5]} {i} তারা, ঘর{i % 7} и море!" for i in range(100)]
TEXTS = [f"the {('sea', 'sun')[i % 2]} ভালো দিন {i}, আমার সোনার বাংলা" for i in range(40)] + ["sea 🙂 sun", "ঢাকা শহর"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

Maker = Callable[[], Tokenizer]


def finish(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(TEXTS + MORE, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    )
    tokenizer.enable_truncation(16)
    return tokenizer


def wordpiece() -> Tokenizer:
    tokenizer = with_normalizer(Tokenizer(models.WordPiece(unk_token="<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    made = finish(tokenizer, trainer)
    made.post_processor = processors.BertProcessing(
        ("</s>", made.token_to_id("</s>")), ("<s>", made.token_to_id("<s>"))
    )
    return made


def metaspace_bpe() -> Tokenizer:
    tokenizer = with_normalizer(Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True)))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return finish(tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False))


def suffixed_bpe() -> Tokenizer:
    tokenizer = with_normalizer(Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>")))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    return finish(tokenizer, trainer)


def prefixed_bpe() -> Tokenizer:
    tokenizer = with_normalizer(Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##")))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, continuing_subword_prefix="##", show_progress=False
    )
    return finish(tokenizer, trainer)


def byte_bpe() -> Tokenizer:
    tokenizer = with_normalizer(Tokenizer(models.BPE()))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made = finish(tokenizer, trainer)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return made


def wordpiece_of(pieces: list[str]) -> Tokenizer:
    tokenizer = with_normalizer(Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.enable_truncation(16)
    return tokenizer


def unigram_of(scores: dict[str, float]) -> Tokenizer:
    """Return a Unigram tokenizer without pre-tokenizer."""
    scored = [(piece, 0.0) for piece in SPECIAL] + list(scores.items())
    tokenizer = with_normalizer(Tokenizer(models.Unigram(scored, unk_id=SPECIAL.index("<unk>"))))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.enable_truncation(16)
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = with_normalizer(Tokenizer(models.Unigram()))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=350, special_tokens=["<pad>", "<s>", "</s>", "<mask>", "<unk>"], unk_token="<unk>"
    )  # so that `unk_id` is not 0
    return Tokenizer.from_str(finish(tokenizer, trainer).to_str())  # JSON changes the last bit of trained scores


def late_mask_unigram() -> Tokenizer:
    """Return a tokenizer with a special token outside the model's vocabulary, as in DeBERTa."""
    made = unigram()
    made.add_special_tokens([AddedToken("[LATE]")])
    return made


TOKENIZERS = [wordpiece, metaspace_bpe, suffixed_bpe, prefixed_bpe, byte_bpe, unigram, late_mask_unigram]

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def encoder(kind: str, tokenizer: Tokenizer) -> Any:
    common = {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": tokenizer.token_to_id("<pad>")}
    rest = common | {"bos_token_id": tokenizer.token_to_id("<s>"), "max_position_embeddings": 24} | SMALL
    match kind:
        case "bert":
            return BertModel(BertConfig(**rest))
        case "roberta":
            return RobertaModel(RobertaConfig(**rest))
        case "xlm-roberta":
            return XLMRobertaModel(XLMRobertaConfig(**rest))
        case _:
            return DistilBertModel(DistilBertConfig(**common, dim=32, n_layers=1, n_heads=2, hidden_dim=32))


def classifier_of(tokenizer: Tokenizer, kind: str = "bert") -> Classifier:
    torch.manual_seed(0)
    network = PooledClassifier(encoder(kind, tokenizer), "mean", 2, 0.1)
    return Classifier(network.eval(), tokenizer, tokenizer.token_to_id("<pad>"), ("a", "b"), DecisionRule(0.4))


def tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[str]]:
    """Return the pieces of each text, with <unk> for unknown ones."""
    return [[str(tokenizer.id_to_token(i)) for i in one.ids] for one in tokenizer.encode_batch(list(texts))]


def embedding_of(classifier: Classifier) -> torch.nn.Embedding:
    return vocabulary_trimming._embedding(classifier.network)


def model_of(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str())["model"]


@pytest.mark.parametrize("make", TOKENIZERS)
@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "distilbert"])
def test_pieces_and_logits_do_not_change(make: Maker, kind: str) -> None:
    original = classifier_of(make(), kind)
    trimmed, trimming = trim_vocabulary(original, TEXTS)
    assert tokens(trimmed.tokenizer, TEXTS) == tokens(original.tokenizer, TEXTS)
    assert trimmed.predict_logits(TEXTS).tobytes() == original.predict_logits(TEXTS).tobytes()
    assert trimmed.parameters == original.parameters - 32 * (trimming.pieces_before - trimming.pieces_after)
    assert trimming.pieces_after < trimming.pieces_before
    assert (trimmed.labels, trimmed.threshold, trimmed.max_length) == (
        original.labels,
        original.threshold,
        original.max_length,
    )


@pytest.mark.parametrize("make", TOKENIZERS)
def test_ids_are_contiguous_in_their_old_order_and_agree_everywhere(make: Maker) -> None:
    original = classifier_of(make())
    trimmed, trimming = trim_vocabulary(original, TEXTS)
    ids, old = trimmed.tokenizer.get_vocab(), original.tokenizer.get_vocab()
    assert sorted(ids.values()) == list(range(trimming.pieces_after))
    assert sorted(ids, key=lambda piece: ids[piece]) == sorted(ids, key=lambda piece: old[piece])
    assert set(SPECIAL) <= set(ids)
    assert trimmed.pad_id == ids["<pad>"]
    config = trimmed.network.config
    assert (config.vocab_size, config.pad_token_id, config.bos_token_id) == (len(ids), ids["<pad>"], ids["<s>"])
    words = embedding_of(trimmed)
    assert (words.num_embeddings, words.padding_idx) == (len(ids), ids["<pad>"])
    first, *_, last = trimmed.tokenizer.encode("sea").ids
    assert (first, last) == (ids["<s>"], ids["</s>"])
    spec = json.loads(trimmed.tokenizer.to_str())
    assert {token["content"]: token["id"] for token in spec["added_tokens"]}.items() <= ids.items()
    if spec["model"]["type"] == "Unigram":
        assert spec["model"]["vocab"][spec["model"]["unk_id"]][0] == "<unk>"


@pytest.mark.parametrize("make", TOKENIZERS)
def test_each_piece_keeps_its_embedding_row(make: Maker) -> None:
    original = classifier_of(make())
    trimmed, _ = trim_vocabulary(original, TEXTS)
    old = embedding_of(original).weight
    new = embedding_of(trimmed).weight
    for piece, i in trimmed.tokenizer.get_vocab().items():
        assert torch.equal(new[i], old[original.tokenizer.token_to_id(piece)]), piece


@pytest.mark.parametrize("make", TOKENIZERS)
def test_the_given_classifier_does_not_change(make: Maker) -> None:
    original = classifier_of(make())
    text, weights = original.tokenizer.to_str(), {k: v.clone() for k, v in original.network.state_dict().items()}
    config = original.network.config.to_dict()
    trimmed, _ = trim_vocabulary(original, TEXTS)
    with torch.no_grad():
        for parameter in trimmed.network.parameters():
            parameter.zero_()
    assert original.tokenizer.to_str() == text
    assert original.network.config.to_dict() == config
    assert all(torch.equal(v, weights[k]) for k, v in original.network.state_dict().items())


@pytest.mark.parametrize("make", TOKENIZERS)
def test_the_vocabulary_fills_up_to_the_size_and_still_gives_the_same_pieces(make: Maker) -> None:
    original = classifier_of(make())
    _, minimal = trim_vocabulary(original, TEXTS)
    size = (minimal.pieces_after + minimal.pieces_before) // 2
    trimmed, trimming = trim_vocabulary(original, TEXTS, size)
    assert trimming.pieces_after == trimmed.tokenizer.get_vocab_size() == size
    assert tokens(trimmed.tokenizer, TEXTS) == tokens(original.tokenizer, TEXTS)
    assert trimming.unseen_identical >= minimal.unseen_identical


@pytest.mark.parametrize("make", TOKENIZERS)
def test_a_size_larger_than_the_vocabulary_keeps_all_pieces(make: Maker) -> None:
    original = classifier_of(make())
    trimmed, trimming = trim_vocabulary(original, TEXTS, 100_000)
    assert trimmed.tokenizer.get_vocab() == original.tokenizer.get_vocab()
    assert (trimming.pieces_after, trimming.unseen_identical) == (trimming.pieces_before, 1.0)
    assert tokens(trimmed.tokenizer, ODD_TEXTS) == tokens(original.tokenizer, ODD_TEXTS)


@pytest.mark.parametrize("make", TOKENIZERS)
def test_odd_texts_keep_their_pieces_when_they_are_among_the_texts(make: Maker) -> None:
    original = classifier_of(make())
    trimmed, _ = trim_vocabulary(original, [*TEXTS, *ODD_TEXTS, "🂡海 ღ"])
    assert tokens(trimmed.tokenizer, ODD_TEXTS) == tokens(original.tokenizer, ODD_TEXTS)
    assert trimmed.predict_logits(ODD_TEXTS).tobytes() == original.predict_logits(ODD_TEXTS).tobytes()


@pytest.mark.parametrize("make", TOKENIZERS)
def test_texts_with_unseen_characters_can_be_predicted(make: Maker) -> None:
    trimmed, _ = trim_vocabulary(classifier_of(make()), TEXTS)
    logits = trimmed.predict_logits(["море", "海", "\U0001f0a1 sea", "x", *ODD_TEXTS])
    assert logits.shape == (4 + len(ODD_TEXTS), 2)
    assert (logits == logits).all()


@pytest.mark.parametrize("make", [metaspace_bpe, suffixed_bpe, prefixed_bpe, byte_bpe])
def test_every_remaining_merge_is_possible(make: Maker) -> None:
    trimmed, _ = trim_vocabulary(classifier_of(make()), TEXTS)
    model = model_of(trimmed.tokenizer)
    prefix = model["continuing_subword_prefix"] or ""
    assert model["merges"]
    assert all({a, b, a + b.removeprefix(prefix)} <= model["vocab"].keys() for a, b in model["merges"])


def test_all_bytes_are_kept_so_that_nothing_is_unknown() -> None:
    trimmed, trimming = trim_vocabulary(classifier_of(byte_bpe()), TEXTS)
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= trimmed.tokenizer.get_vocab().keys()
    assert trimmed.tokenizer.decode(trimmed.tokenizer.encode("море 海").ids) == "море 海"
    assert (trimming.unseen_unknown, trimming.unseen_unknown_before) == (0.0, 0.0)


def test_byte_fallback_pieces_are_kept() -> None:
    fallback = {f"<0x{byte:02X}>": 5 + byte for byte in range(256)}
    vocab = {piece: i for i, piece in enumerate(SPECIAL)} | fallback | {"s": 261, "e": 262, "z": 263, "zz": 264}
    model = models.BPE(vocab, [("z", "z")], unk_token="<unk>", byte_fallback=True)
    tokenizer = with_normalizer(Tokenizer(model))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.enable_truncation(16)
    trimmed, _ = trim_vocabulary(classifier_of(tokenizer), ["se", "es"])
    assert fallback.keys() <= trimmed.tokenizer.get_vocab().keys()
    assert "zz" not in trimmed.tokenizer.get_vocab()
    assert trimmed.tokenizer.encode("я").tokens == ["<0xD1>", "<0x8F>"]


def test_letters_of_seen_scripts_and_symbols_are_kept_and_other_letters_are_removed() -> None:
    pieces = [*SPECIAL, "a", "##a", "b", "##b", "ক", "##ক", "খ", "##খ", "ж", "##ж", "7", "৭", "९", "न", "!", "🙂", "ab"]
    tokenizer = wordpiece_of(pieces)
    trimmed, _ = trim_vocabulary(classifier_of(tokenizer), ["a", "ক", "aa"])
    gone = set(pieces) - trimmed.tokenizer.get_vocab().keys()
    assert gone == {"ж", "##ж", "न", "९", "ab"}  # "९" is a digit of Devanagari, of which "न" is a letter


def test_figures_on_unseen_texts_match_a_manual_count() -> None:
    pieces = [*SPECIAL, "a", "##a", "b", "##b", "ab", "aa", "ж", "zz"]
    seen = ["ab", "a b", "b", "a"]
    unseen = {
        "ab ab": ("ab ab", "ab ab"),
        "ba ж": ("b ##a ж", "b ##a <unk>"),
        "aa ab": ("aa ab", "a ##a ab"),
        "ab 海": ("ab <unk>", "ab <unk>"),
    }  # pieces under the full vocabulary, and under the one trimmed to `seen`
    original = classifier_of(wordpiece_of(pieces))
    trimmed_half, _ = trim_vocabulary(original, seen)
    assert tokens(original.tokenizer, list(unseen)) == [before.split() for before, _ in unseen.values()]
    assert tokens(trimmed_half.tokenizer, list(unseen)) == [after.split() for _, after in unseen.values()]
    texts = [text for pair in zip(seen, unseen, strict=True) for text in pair]
    _, trimming = trim_vocabulary(original, [*texts, "ab", " ab  ab"])
    assert trimming == Trimming(
        pieces_before=13,
        pieces_after=12,
        half_pieces=10,
        unseen_texts=4,
        unseen_identical=2 / 4,
        unseen_longer=10 / 9,
        unseen_unknown=2 / 10,
        unseen_unknown_before=1 / 9,
    )


def test_duplicate_texts_are_not_counted_as_unseen() -> None:
    _, trimming = trim_vocabulary(classifier_of(metaspace_bpe()), ["sea", "sun", " sea", "sea\u200b", "sun "])
    assert trimming.unseen_texts == 1


@pytest.mark.parametrize("texts", [[], ["sea"], ["sea", " sea "]])
def test_too_few_texts_to_measure_are_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match=r"^--trim-vocabulary: needs at least two different texts"):
        trim_vocabulary(classifier_of(metaspace_bpe()), texts)


@pytest.mark.parametrize("size", [1, -3])
def test_a_size_below_the_minimum_is_reported_with_the_minimum(size: int) -> None:
    original = classifier_of(unigram())
    _, minimal = trim_vocabulary(original, TEXTS)
    with pytest.raises(InputError, match=f"^--trim-vocabulary {size}: the texts need {minimal.pieces_after} pieces"):
        trim_vocabulary(original, TEXTS, size)
    assert trim_vocabulary(original, TEXTS, minimal.pieces_after)[1].pieces_after == minimal.pieces_after


@pytest.mark.parametrize("make", TOKENIZERS)
def test_a_text_whose_pieces_would_change_is_reported_by_row(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    original = classifier_of(make())
    texts = ["the 1", "sun 2", "sea 3"]
    lost = original.tokenizer.encode("sea 3", add_special_tokens=False).ids[0]
    needed_pieces = vocabulary_trimming.needed_pieces
    monkeypatch.setattr(vocabulary_trimming, "needed_pieces", lambda *arguments: needed_pieces(*arguments) - {lost})
    others = original.tokenizer.encode_batch(texts[:2], add_special_tokens=False)
    row = next((i for i, one in enumerate(others) if lost in one.ids), 2)
    with pytest.raises(InputError, match=rf"pieces of text {row} \(counted from 0\).*leave --trim-vocabulary out"):
        trim_vocabulary(original, texts)


def test_wordpiece_keeps_the_pieces_matched_in_unknown_words() -> None:
    """Without "ab", the word "abc" would become "a" and "##bc" instead of unknown."""
    pieces = [*SPECIAL, "a", "ab", "##bc", "x", "##x"]
    tokenizer = wordpiece_of(pieces)
    trimmed, _ = trim_vocabulary(classifier_of(tokenizer), ["abc", "xbc"])
    assert tokens(trimmed.tokenizer, ["abc", "xbc"]) == [["<unk>"], ["x", "##bc"]]


def test_unigram_keeps_the_lowest_score_because_the_unknown_score_depends_on_it() -> None:
    tokenizer = unigram_of({"a": -1.0, "aж": -25.0, "zzz": -30.0})
    original = classifier_of(tokenizer)
    trimmed, _ = trim_vocabulary(original, ["aж", "a"])
    assert tokens(trimmed.tokenizer, ["aж"]) == tokens(tokenizer, ["aж"]) == [["aж"]]
    assert "zzz" in trimmed.tokenizer.get_vocab()


def test_filling_up_prefers_scripts_of_the_texts_then_high_scores() -> None:
    scores = {"a": -1.0, "b": -1.0, "жж": -2.0, "bb": -4.0, "ab": -3.0, "[unused1]": -1.0, "ba": -9.0}
    original = classifier_of(unigram_of(scores))
    kept = [set(trim_vocabulary(original, ["a", "b"], size)[0].tokenizer.get_vocab()) for size in range(8, 13)]
    assert kept[0] == {*SPECIAL, "a", "b", "ba"}  # the lowest score is kept
    grown = [next(iter(more - less)) for less, more in pairwise(kept)]
    assert grown == ["ab", "bb", "жж", "[unused1]"]


def test_the_padding_id_is_kept_if_positions_start_from_it() -> None:
    """The padding id is 3, and one of the lower ids is an unused piece."""
    pieces = ["<s>", "zzz", "</s>", "<pad>", "<unk>", "<mask>", "yyy", "a", "b"]
    tokenizer = wordpiece_of(pieces)
    texts = ["a b", "b", "a a a b"]
    for kind, kept in (("roberta", True), ("bert", False)):
        original = classifier_of(tokenizer, kind)
        trimmed, _ = trim_vocabulary(original, texts)
        assert ("zzz" in trimmed.tokenizer.get_vocab()) == kept
        assert trimmed.pad_id == (3 if kept else 2)
        assert "yyy" not in trimmed.tokenizer.get_vocab()
        assert trimmed.predict_logits(texts).tobytes() == original.predict_logits(texts).tobytes()


def test_a_hugging_face_head_is_kept() -> None:
    tokenizer = byte_bpe()
    config = RobertaConfig(vocab_size=tokenizer.get_vocab_size(), pad_token_id=1, max_position_embeddings=24, **SMALL)
    model = SequenceClassifier(RobertaForSequenceClassification(config)).eval()
    original = Classifier(model, tokenizer, 1, ("a", "b"))
    trimmed, _ = trim_vocabulary(original, TEXTS)
    assert isinstance(trimmed.network, SequenceClassifier)
    assert trimmed.parameters < original.parameters
    assert trimmed.predict_logits(TEXTS).tobytes() == original.predict_logits(TEXTS).tobytes()


def test_a_configured_id_that_was_removed_becomes_none() -> None:
    original = classifier_of(unigram())
    config = original.network.config
    config.sep_token_id = max(original.tokenizer.get_vocab().values()) + 1
    config.eos_token_id = [original.tokenizer.token_to_id("</s>"), config.sep_token_id]
    trimmed, _ = trim_vocabulary(original, TEXTS)
    assert trimmed.network.config.sep_token_id is None
    assert trimmed.network.config.eos_token_id == [trimmed.tokenizer.token_to_id("</s>")]


def test_frozen_embeddings_stay_frozen() -> None:
    original = classifier_of(unigram())
    original.network.encoder.requires_grad_(False)
    trimmed, _ = trim_vocabulary(original, TEXTS)
    assert trimmed.trainable_parameters == original.trainable_parameters


@pytest.mark.parametrize("make", TOKENIZERS)
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_trimmed_classifier_can_be_saved_and_loaded(make: Maker, kind: str, tmp_path: Path) -> None:
    trimmed, _ = trim_vocabulary(classifier_of(make(), kind), TEXTS)
    save_classifier(trimmed, tmp_path)
    back = load_classifier(tmp_path)
    assert back.tokenizer.get_vocab() == trimmed.tokenizer.get_vocab()
    assert (back.pad_id, back.max_length, back.threshold) == (trimmed.pad_id, trimmed.max_length, trimmed.threshold)
    assert back.predict_logits(TEXTS).tobytes() == trimmed.predict_logits(TEXTS).tobytes()


def test_trimming_twice_equals_trimming_once() -> None:
    once, first = trim_vocabulary(classifier_of(metaspace_bpe()), TEXTS)
    twice, second = trim_vocabulary(once, TEXTS)
    assert twice.tokenizer.to_str() == once.tokenizer.to_str()
    assert second.pieces_after == first.pieces_after


def test_an_unsupported_tokenizer_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(SPECIAL)}, unk_token="<unk>"))
    tokenizer.enable_truncation(16)
    with pytest.raises(InputError, match=r"^--trim-vocabulary: a WordLevel tokenizer cannot be trimmed; leave"):
        trim_vocabulary(classifier_of(tokenizer), TEXTS)


def test_a_model_without_an_embedding_matrix_is_refused() -> None:
    original = classifier_of(unigram())
    bare = SequenceClassifier.__new__(SequenceClassifier)
    torch.nn.Module.__init__(bare)
    with pytest.raises(InputError, match="no embedding matrix to trim; leave --trim-vocabulary out"):
        trim_vocabulary(replace(original, network=bare), TEXTS)


def test_a_model_with_fewer_rows_than_pieces_is_refused() -> None:
    original = classifier_of(unigram())
    original.tokenizer.add_tokens(["new"])
    with pytest.raises(InputError, match="more pieces than the model has embeddings"):
        trim_vocabulary(original, TEXTS)


SHARED = Path(__file__).resolve().parents[4] / "shared"
COMMENTS, ENCODER = SHARED / "data" / "bangla_hate.csv", SHARED / "models" / "me5-small-bn"


@pytest.mark.slow
@pytest.mark.skipif(
    not (COMMENTS.is_file() and ENCODER.is_dir()), reason=f"needs {COMMENTS} and {ENCODER}, which are not committed"
)
def test_the_real_encoder_keeps_its_pieces_and_logits_on_all_comments() -> None:
    """Asserts on precomputed booleans, so that no text of the data is printed."""
    with COMMENTS.open(encoding="utf-8", newline="") as file:
        texts = [row["Comments"] for row in csv.DictReader(file)]
    original = build_classifier(ModelSettings(model=str(ENCODER), pooling="mean"), ("a", "b"), [], seed=0)
    trimmed, trimming = trim_vocabulary(original, texts)
    same = tokens(trimmed.tokenizer, texts) == tokens(original.tokenizer, texts)
    assert same
    some = texts[:: len(texts) // 16]
    same = trimmed.predict_logits(some).tobytes() == original.predict_logits(some).tobytes()
    assert same
    assert (trimming.pieces_before, trimmed.tokenizer.get_vocab_size()) == (16_054, trimming.pieces_after)
    assert trimming.pieces_after < 5_000
    assert 0.9 < trimming.unseen_identical < 1.0
    assert trimming.unseen_unknown < 0.001

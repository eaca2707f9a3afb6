"""Train a tokenizer on the corpus, and encode with, save and load tokenizers."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from toolkit.data.normalization import with_normalizer
from toolkit.utils.errors import InputError

TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_SIZE = 8_000
"""Maximum vocabulary size of a tokenizer trained on the corpus."""
STEP = 10_000
"""Texts that are encoded at a time."""
PAD = "[PAD]"
ROLES = {
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
"""Usual names of the special tokens, by their role in tokenizer_config.json."""
SPECIAL = ("[CLS]", PAD, "[SEP]", "[UNK]", "[MASK]")


def train_tokenizer(texts: Sequence[str], max_length: int) -> Tokenizer:
    """Train a byte-pair encoding tokenizer (Sennrich et al. 2016) on `texts`, with at most VOCABULARY_SIZE tokens."""
    tokenizer = with_normalizer(Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(behavior="isolated")]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, min_frequency=2, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )
    tokenizer.enable_truncation(max_length=max_length)
    return tokenizer


@dataclass(frozen=True)
class Truncation:
    """How many texts a tokenizer cuts."""

    max_length: int
    """Maximum number of tokens of a text."""
    texts: int
    cut: int
    """Number of these texts that are longer."""

    @property
    def line(self) -> str:
        share = f" ({100 * self.cut / self.texts:.1f} %)" if self.cut else ""
        verb = "is" if self.cut == 1 else "are"
        return f"{self.cut:,} of {self.texts:,} test texts{share} {verb} cut at {self.max_length:,} tokens"


def truncation_of(tokenizer: Tokenizer, texts: Sequence[str]) -> Truncation | None:
    """Return how many of `texts` a tokenizer cuts; None if it never does."""
    max_length = max_length_of(tokenizer)
    if max_length is None:
        return None
    encodings = tokenizer.encode_batch(list(texts))
    return Truncation(max_length, len(encodings), sum(bool(each.overflowing) for each in encodings))


def truncation_in(details: dict[str, Any]) -> Truncation | None:
    """Return the truncation in the details of an exported stage; None if there is none."""
    return Truncation(**details["truncation"]) if "truncation" in details else None


def max_length_of(tokenizer: Tokenizer) -> int | None:
    """Return the number of tokens at which a tokenizer truncates; None if it does not."""
    return None if tokenizer.truncation is None else int(tokenizer.truncation["max_length"])


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, truncated to the tokenizer's maximum length and not padded."""
    return [ids for some in encode_in_steps(tokenizer, texts) for ids in some]


def encode_in_steps(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[list[int]]]:
    """Yield the result of `encode` for STEP texts at a time: an encoding is many times larger than its ids."""
    for start in range(0, len(texts), STEP):
        yield [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts[start : start + STEP]))]


def save_tokenizer(tokenizer: Tokenizer, pad_id: int, file: Path) -> None:
    """Write `tokenizer` with its padding, so that the file contains all settings that a runtime needs."""
    stored = Tokenizer.from_str(tokenizer.to_str())
    stored.enable_padding(pad_id=pad_id, pad_token=stored.id_to_token(pad_id))
    stored.save(str(file))


def save_tokenizer_config(tokenizer: Tokenizer, pad_id: int, file: Path) -> None:
    """Write the file that AutoTokenizer and transformers.js need beside tokenizer.json.

    It names only special tokens that the tokenizer has already: another one would be cut out of texts that contain it.
    """
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": tokenizer.id_to_token(pad_id),
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    config |= {role: name for role, names in ROLES.items() for name in names if name in special}
    max_length = max_length_of(tokenizer)
    config |= {} if max_length is None else {"model_max_length": max_length}
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_tokenizer(file: Path) -> tuple[Tokenizer, int]:
    """Load a tokenizer written by `save_tokenizer`, with padding disabled, and its padding id.

    Raises: InputError if it cannot be loaded.
    """
    try:
        tokenizer = Tokenizer.from_file(str(file))
        pad_id = int(tokenizer.padding["pad_id"])
    except Exception as error:  # the only type that tokenizers raises
        raise InputError(f"{file}: cannot load the tokenizer ({error})") from None
    tokenizer.no_padding()
    return tokenizer, pad_id

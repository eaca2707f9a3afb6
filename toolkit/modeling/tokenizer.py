"""Train a tokenizer on the corpus, and encode with, save and load tokenizers."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from toolkit.data.normalization import with_normalizer
from toolkit.utils.errors import InputError

VOCABULARY_SIZE = 8_000
"""Maximum vocabulary size of a tokenizer trained on the corpus."""
PAD = "[PAD]"
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


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, truncated to the tokenizer's maximum length and not padded."""
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def save_tokenizer(tokenizer: Tokenizer, pad_id: int, file: Path) -> None:
    """Write `tokenizer` with its padding, so that the file contains all settings that a runtime needs."""
    stored = Tokenizer.from_str(tokenizer.to_str())
    stored.enable_padding(pad_id=pad_id, pad_token=stored.id_to_token(pad_id))
    stored.save(str(file))


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

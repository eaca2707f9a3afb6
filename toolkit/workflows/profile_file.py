"""`hbt data`: profile a labeled file, including text lengths in tokens."""

from contextlib import nullcontext

from tokenizers import Tokenizer

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import find_columns, read_source, text_values
from toolkit.data.profile import DataProfile, profile
from toolkit.data.tables import Table
from toolkit.utils.console import working

LONG = 50_000
"""Rows from which on training a tokenizer takes seconds."""


def profile_file(settings: CorpusSettings, model: str | None, max_length: int) -> DataProfile:
    """Return a profile of the file in `settings`.

    model: hub id or folder of the encoder whose tokens are counted; with None, a tokenizer is trained on the file, as
    for a shape: encoder.
    max_length: maximum number of tokens in a run; the encoder may read fewer.
    Raises: InputError if the file cannot be read or the encoder cannot be loaded.
    """
    table = read_source(settings)
    return profile(table, settings, _tokenizer(model, max_length, table, settings))


def _tokenizer(model: str | None, max_length: int, table: Table, settings: CorpusSettings) -> Tokenizer:
    if model is None:
        from toolkit.modeling.tokenizer import train_tokenizer

        texts = text_values(table, find_columns(table, settings)[0])
        with working("training a tokenizer") if len(texts) > LONG else nullcontext():
            return train_tokenizer(texts, max_length=max_length)
    from transformers import AutoModel

    from toolkit.modeling.hugging_face import from_hugging_face

    return from_hugging_face(AutoModel, model, max_length)[1]

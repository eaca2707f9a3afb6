"""Encode texts as subword ids for a transformer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from exporters.loaders.common import Encode


def subwords(tokenizer: Tokenizer) -> Encode:
    """Return a function that encodes texts as subword ids."""

    def encode(texts: Sequence[str]) -> list[np.ndarray]:
        # encode_batch uses threads, which is slower for a single text.
        found = [tokenizer.encode(texts[0])] if len(texts) == 1 else tokenizer.encode_batch(list(texts))
        return [np.array(each.ids, dtype=np.int64) for each in found]

    return encode

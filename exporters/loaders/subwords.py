"""Token ids of a transformer."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from exporters.loaders.common import Encode


def subwords(tokenizer: Tokenizer) -> Encode:
    """Return a function that splits texts into subwords."""

    def encode(texts: Sequence[str]) -> list[np.ndarray]:
        # A batch is spread over threads, which takes longer than it saves for one text.
        found = [tokenizer.encode(texts[0])] if len(texts) == 1 else tokenizer.encode_batch(list(texts))
        return [np.array(each.ids, dtype=np.int64) for each in found]

    return encode

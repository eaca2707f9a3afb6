"""The n-gram model of a package with arrays as results. Its table is read from the ONNX graph of the package."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from exporters.loaders.model_bin.model import COUNTS, MAGIC, MODULUS, MULTIPLIER, SPACE_ID, SQUARES, Model
from exporters.loaders.onnx_runtime.graph_file import GRAPH_FILE

HEAD_FILE = "ngram.bin"
"""Where the table is in the graph (uint64), then model.bin up to its table."""
PAD_ID = 0
LONGEST = 5


class ArrayModel(Model):
    """A model that returns arrays. numpy is imported when it is first needed: it takes longer than all else."""

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> Any:
        """Return float32 (texts, labels): rows sum to 1, in the order of `texts`, columns in the order of `labels`.

        Scores do not depend on the batch size.
        Raises: ValueError for one text instead of a list, a text that is not a str, a batch size below 1, or scores
            that are not finite.
        """
        return self.array(super().predict_proba(texts, batch_size))

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> Any:
        """Return logits, float32 (texts, labels). See `predict_proba` for errors."""
        return self.array(super().predict_logits(texts, batch_size))

    def array(self, rows: list[list[float]]) -> Any:
        """Return float32 (texts, labels)."""
        import numpy as np

        return np.array(rows, dtype=np.float32).reshape(len(rows), len(self.labels))

    def scored(self, texts: list[str], batch_size: int) -> list[list[float]]:
        """Return the logits of each text: one by one, or `batch_size` at a time."""
        if batch_size == 1 or self.compiled:
            return super().scored(texts, batch_size)
        found = []
        for start in range(0, len(texts), batch_size):
            found += self.batch_logits([self.token_ids(text) for text in texts[start : start + batch_size]])
        return found

    @cached_property
    def codes(self) -> Any:
        """The table, uint8 (rows, 1 + outputs)."""
        import numpy as np

        return np.frombuffer(self.table, dtype=np.uint8).reshape(self.rows, len(self.scales))

    @cached_property
    def squares(self) -> Any:
        """SQUARES, int32 (256,)."""
        import numpy as np

        return np.array(SQUARES, dtype=np.int32)

    def batch_logits(self, encoded: list[list[int]]) -> list[list[float]]:
        """Return what `logits` returns for each, computed together: all ids in one row, with padding between texts."""
        import numpy as np

        joined: list[int] = []
        starts = []
        for ids in encoded:
            starts.append(len(joined))
            joined += ids
            joined.append(PAD_ID)
        count = len(joined)
        padded = np.array(joined + [PAD_ID] * LONGEST, dtype=np.int64)
        hashed, inside = padded[:count], padded[:count] != PAD_ID
        sums = np.zeros((count, len(self.scales)), dtype=np.int32)  # of the n-grams that start at each id
        for last in range(1, LONGEST):
            char = padded[last : last + count]
            inside = inside & (char != PAD_ID)
            hashed = (hashed * MULTIPLIER + char) % MODULUS
            rows = (hashed % (self.rows - self.word_rows - 1) + 1) * inside  # row 0 is zero
            sums += self.squares.take(self.codes.take(rows, axis=0))
            if last == 2 and self.word_rows:
                self.add_words(sums, padded[:count], hashed * inside)
            inside = inside & (char != SPACE_ID)  # in longer n-grams, it is inside
        totals = np.add.reduceat(sums, starts, dtype=np.int64).astype(np.float64)  # (texts, 1 + outputs)
        norms = np.sqrt(np.maximum(totals[:, :1] * self.scales[0], 1.0))
        scores = totals[:, 1:] * np.array(self.scales[1:]) / norms + np.array(self.intercept)
        if scores.shape[1] == 1:
            scores = np.concatenate([-scores / 2, scores / 2], axis=1)
        return scores.tolist()

    def add_words(self, sums: Any, ids: Any, hashed: Any) -> None:
        """Add the rows of words and pairs of words to the sums of the spaces that end them.

        sums: int32 (ids, 1 + outputs). hashed: int64 (ids,), the hash of the 3-gram that starts there; 0 for none.
        """
        import numpy as np

        spaces = np.flatnonzero(ids == SPACE_ID)
        before = np.concatenate([[0], np.cumsum(hashed * hashed % MODULUS)])[spaces]
        words, ends = np.diff(before), spaces[1:]  # 0 between two texts
        hashes = np.where(words > 0, words % MODULUS, -1)
        previous = np.concatenate([[-1], hashes[:-1]])
        pairs = np.where(np.minimum(previous, hashes) < 0, -1, (previous * MULTIPLIER + hashes) % MODULUS)
        for each in (hashes, pairs):
            rows = each[each >= 0] % self.word_rows + self.rows - self.word_rows
            sums[ends[each >= 0]] += self.squares.take(self.codes.take(rows, axis=0))


def model_bin(root: Path) -> bytes:
    """Return the bytes of model.bin, put together from ngram.bin and the table in the graph.

    The graph has the same rows in another order: row 0, which is zero, is its last.
    """
    head = (root / HEAD_FILE).read_bytes()
    (place,) = struct.unpack_from("<Q", head)
    rows, outputs = COUNTS.unpack_from(head, 8 + len(MAGIC))[:2]
    if rows < 2 or outputs > len(head):
        raise ValueError(f"{HEAD_FILE} states a table that it cannot have")
    with (root / GRAPH_FILE).open("rb") as graph:
        graph.seek(min(place, 2**62))
        table = memoryview(graph.read())[: (rows - 1) * (1 + outputs)]
    return b"".join([head[8:], bytes(1 + outputs), table])

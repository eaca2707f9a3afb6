"""The n-gram student: a linear model over hashed n-grams, trained on labels and on the logits of a transformer.

It follows Sparse Distillation (Ye et al. 2021): a lookup table replaces layers and attention. Every window of 2 to 5
characters inside a word and its boundaries is hashed to a row of the table, which holds the squared idf of the n-gram
and its weights. The table may have further rows for words and for pairs of neighboring words. The logits are sums:

    logits = Σ weights / √(Σ idf²) + intercept        (linear in L2-normalized TF-IDF)

A runtime only needs shifts, multiplications, a modulo, one lookup, sums and a square root.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from toolkit.data.normalization import normalizer_steps
from toolkit.utils.errors import InputError

MODEL_TYPE = "ngram"
SHORTEST, LONGEST = 2, 5
PAD_ID, UNKNOWN_ID, SPACE_ID = 0, 1, 2
SPACE = "▁"
MULTIPLIER, MODULUS = 1_000_003, 2**31 - 1
"""The hash of an n-gram is a polynomial in MULTIPLIER of its character ids, modulo a Mersenne prime. Every product is
below 2^63, so all runtimes with 64-bit integers agree."""
WORD_WINDOW = 3
"""Characters of the windows whose hashes make up the hash of a word. Every word has one, with its boundaries."""
DEFAULT_BITS = 18
"""log2 of the number of table rows for the student name `ngram`."""


@dataclass(frozen=True)
class NgramConfig:
    """Network settings in `config.json`, with the interface of a Hugging Face configuration."""

    rows: int
    outputs: int
    """1 for two labels (the difference of their logits), otherwise the number of labels."""
    word_rows: int = 0
    """How many of the rows, the last ones, are for words and pairs of words; 0 for none."""
    model_type: str = MODEL_TYPE

    def to_diff_dict(self) -> dict[str, Any]:
        found = {"model_type": self.model_type, "rows": self.rows, "outputs": self.outputs}
        return found | ({"word_rows": self.word_rows} if self.word_rows else {})


class NgramNetwork(nn.Module):
    """The table and the intercept, with the interface of a transformer classifier."""

    def __init__(self, config: NgramConfig) -> None:
        super().__init__()
        self.config: Any = config
        self.table = nn.Parameter(torch.zeros(config.rows, 1 + config.outputs), requires_grad=False)
        """(rows, 1 + outputs): squared idf, then the weight times idf of each output. Row 0 (no n-gram) is zero."""
        self.intercept = nn.Parameter(torch.zeros(config.outputs), requires_grad=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        rows = table_rows(input_ids, self.config.rows, self.config.word_rows)
        values = self.table[rows]  # (batch, windows, 1 + outputs)
        sums = values.sum(dim=1, dtype=torch.float64).float()  # a long text has many windows
        norm = torch.sqrt(sums[:, :1].clamp(min=1.0))  # 1 for a text without n-grams
        scores = sums[:, 1:] / norm + self.intercept  # (batch, outputs)
        return {"logits": torch.cat([-scores / 2, scores / 2], dim=1) if scores.shape[1] == 1 else scores}


def table_rows(input_ids: torch.Tensor, rows: int, word_rows: int = 0) -> torch.Tensor:
    """Return the table row of every window of characters: int64 (batch, tokens) -> (batch, windows).

    A window is an n-gram if it ends before the padding and contains no space, except at its ends. Other windows get
    row 0. With `word_rows`, words and pairs of words follow, at the spaces that end them.
    """
    padded = nn.functional.pad(input_ids, (0, LONGEST - 1), value=PAD_ID)
    tokens = input_ids.shape[1]
    hashed = input_ids
    valid = torch.ones_like(input_ids)
    table_row = []
    for last in range(1, LONGEST):
        char = padded[:, last : last + tokens]  # last character of the window that starts at each position
        hashed = (hashed * MULTIPLIER + char) % MODULUS
        inside = valid * (char != PAD_ID)
        table_row.append((hashed % (rows - word_rows - 1) + 1) * inside)
        if word_rows and last + 1 == WORD_WINDOW:
            words = _word_rows(input_ids, hashed * inside, word_rows)
            table_row += [torch.where(each < 0, 0, each + rows - word_rows) for each in words]
        valid = valid * (char != SPACE_ID)  # in longer windows, this character is inside
    return torch.cat(table_row, dim=1)


def _word_rows(input_ids: torch.Tensor, hashed: torch.Tensor, word_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the place of each word and of each pair of words among their rows, int64 (batch, tokens); -1 for none.

    A word and its boundaries have the hash Σ h² over the hashes h of their windows of WORD_WINDOW characters. Without
    the squares, words of the same letters would have the same hash.

    hashed: int64 (batch, tokens), the hash of the window that starts at each character; 0 for none.
    """
    squares = hashed * hashed % MODULUS
    before = squares.cumsum(dim=1) - squares
    places = (input_ids == SPACE_ID).nonzero(as_tuple=True)
    words = torch.diff(before[places], prepend=torch.zeros_like(before[:1, 0]))  # not positive at the start of a text
    hashes = torch.where(words > 0, words % MODULUS, -1)
    previous = nn.functional.pad(hashes, (1, -1), value=-1)
    pairs = torch.where(torch.minimum(previous, hashes) < 0, -1, (previous * MULTIPLIER + hashes) % MODULUS)
    found = []
    for each in (hashes, pairs):
        dense = torch.full_like(input_ids, -1)
        dense[places] = torch.where(each < 0, -1, each % word_rows)
        found.append(dense)
    return found[0], found[1]


def word_rows_of(rows: int) -> int:
    """Return how many of the rows of a table are for words, if it has any."""
    return rows // 2


def is_ngram(student: str | None) -> bool:
    """Return whether a student's name means an n-gram student."""
    return student is not None and (student == MODEL_TYPE or student.startswith(f"{MODEL_TYPE}:"))


def rows_of(student: str) -> int:
    """Return the number of table rows of the student `ngram` or `ngram:BITS`. Raise InputError for other names."""
    if student == MODEL_TYPE:
        return 2**DEFAULT_BITS
    bits = re.fullmatch(rf"{MODEL_TYPE}:(\d+)", student)
    if not bits or not 8 <= int(bits[1]) <= 24:
        raise InputError(f"--student {student}: use ngram, or ngram:BITS for a table of 2^BITS rows, BITS from 8 to 24")
    return 2 ** int(bits[1])


def character_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """Return a tokenizer that splits normalized, lowercased text into characters and adds a space at both ends.

    It never truncates. Tokenizers of older checkpoints and packages truncate at 1,024.
    Characters that do not occur in `texts` become the unknown token.
    """
    steps = [*normalizer_steps(), normalizers.Lowercase(), normalizers.Replace(" ", SPACE)]
    normalizer = normalizers.Sequence(steps)
    seen = sorted({char for text in texts for char in normalizer.normalize_str(text)} - {SPACE})
    special = {"[PAD]": PAD_ID, "[UNK]": UNKNOWN_ID, SPACE: SPACE_ID}
    vocabulary = special | {char: len(special) + i for i, char in enumerate(seen)}
    # Without merges, byte-pair encoding gives every character its id, as WordLevel does; but transformers.js has no id
    # for a word that a WordLevel model does not know.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]", fuse_unk=False))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPACE} $A {SPACE}", special_tokens=[(SPACE, SPACE_ID)]
    )
    return tokenizer

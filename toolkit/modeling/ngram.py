"""The sparse student: a linear model over hashed character n-grams that learned a transformer's logits.

In the spirit of Sparse Distillation (Ye et al. 2021): no layers, no attention, one table that is looked up. A text
is its characters; every window of 2 to 5 characters inside a word and its boundaries is hashed to a row of the
table, which holds the squared idf of the n-gram and its weights. Sums of these are the logits:

    logits = Σ weights / √(Σ idf²) + intercept        (TF-IDF, L2-normalized, linear)

so that a runtime needs shifts, multiplications, a modulo, one look-up, sums and a square root.
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
"""The hash of an n-gram: a polynomial in MULTIPLIER of its character ids modulo a Mersenne prime; every product
stays below 2^63, so any runtime with 64-bit integers gets the same."""
LONGEST_TEXT = 1024
"""Characters of a text that count."""
BITS = 18
"""log2 of the rows of the table where the student's name does not say it."""


@dataclass(frozen=True)
class NgramConfig:
    """What `config.json` says of the network; the two names are those of Hugging Face configurations."""

    rows: int
    outputs: int
    """1 for two labels: the difference of their logits."""
    model_type: str = MODEL_TYPE

    def to_diff_dict(self) -> dict[str, Any]:
        return {"model_type": self.model_type, "rows": self.rows, "outputs": self.outputs}


class NgramNetwork(nn.Module):
    """The table and the intercept, behind the same call as a transformer."""

    def __init__(self, config: NgramConfig) -> None:
        super().__init__()
        self.config: Any = config
        self.table = nn.Parameter(torch.zeros(config.rows, 1 + config.outputs), requires_grad=False)
        """Squared idf, then the weight (times idf) of each output. Row 0 is that of no n-gram: zeros."""
        self.intercept = nn.Parameter(torch.zeros(config.outputs), requires_grad=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        sums = self.table[table_rows(input_ids, self.config.rows)].sum(dim=1)  # (batch, 1 + outputs)
        norm = torch.sqrt(sums[:, :1].clamp(min=1.0))  # no n-gram at all: the intercept alone
        scores = sums[:, 1:] / norm + self.intercept  # (batch, outputs)
        return {"logits": torch.cat([-scores / 2, scores / 2], dim=1) if scores.shape[1] == 1 else scores}


def table_rows(input_ids: torch.Tensor, rows: int) -> torch.Tensor:
    """The row of every window of characters: int64 (batch, tokens) -> (batch, windows), 0 where there is no n-gram.

    A window is an n-gram if it ends before the padding and has no space inside; at its ends it may.
    """
    longest = nn.functional.pad(input_ids, (0, LONGEST - 1), value=PAD_ID)
    tokens = input_ids.shape[1]
    hashed = input_ids
    alive = torch.ones_like(input_ids)
    found = []
    for last in range(1, LONGEST):
        char = longest[:, last : last + tokens]  # the last character of the window that starts at each place
        hashed = (hashed * MULTIPLIER + char) % MODULUS
        found.append((hashed % (rows - 1) + 1) * alive * (char != PAD_ID))
        alive = alive * (char != SPACE_ID)  # as the next window has it inside
    return torch.cat(found, dim=1)


def is_ngram(student: str | None) -> bool:
    """Whether a student's name asks for this model."""
    return student is not None and (student == MODEL_TYPE or student.startswith(f"{MODEL_TYPE}:"))


def rows_of(student: str) -> int:
    """Rows of the table that `ngram` or `ngram:BITS` asks for. Raises InputError for a broken name."""
    if student == MODEL_TYPE:
        return 2**BITS
    bits = re.fullmatch(rf"{MODEL_TYPE}:(\d+)", student)
    if not bits or not 8 <= int(bits[1]) <= 24:
        raise InputError(f"--student {student}: write ngram, or ngram:BITS for a table of 2^BITS rows, BITS 8 to 24")
    return 2 ** int(bits[1])


def character_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """A tokenizer whose tokens are characters of the normalized, lower-cased text, a space at either end.

    Characters that `texts` lack become the unknown one.
    """
    steps = [*normalizer_steps(), normalizers.Lowercase(), normalizers.Replace(" ", SPACE)]
    normalizer = normalizers.Sequence(steps)
    seen = sorted({char for text in texts for char in normalizer.normalize_str(text)} - {SPACE})
    special = {"[PAD]": PAD_ID, "[UNK]": UNKNOWN_ID, SPACE: SPACE_ID}
    vocabulary = special | {char: len(special) + i for i, char in enumerate(seen)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPACE} $A {SPACE}", special_tokens=[(SPACE, SPACE_ID)]
    )
    tokenizer.enable_truncation(max_length=LONGEST_TEXT)
    return tokenizer

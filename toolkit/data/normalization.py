"""Text normalization, as a `tokenizers` normalizer.

It is stored in `tokenizer.json`, so training, the package and any other runtime that reads this file normalize texts in
the same way. The corpus uses the same normalizer to find duplicates.
"""

import json

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.models import BPE

# Characters without meaning of their own: controls, soft hyphen, zero-width space and (non-)joiners, direction marks,
# byte-order mark. A joiner is removed, not replaced by a space: inside a Bangla conjunct (ra + joiner + ya-phala) a
# space would split the word.
_INVISIBLE = "[\u0000-\u0008\u000e-\u001f\u007f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"


def normalizer_steps() -> list[normalizers.Normalizer]:
    """Return the steps: remove invisible characters, apply Unicode NFC, collapse white space, strip.

    NFC gives the Bangla nukta letters one spelling (U+09DF becomes U+09AF U+09BC, because these letters are composition
    exclusions of Unicode) and joins split vowel signs (U+09C7 U+09BE becomes U+09CB). It follows the removal of
    invisible characters, which would prevent composition.
    """
    return [
        normalizers.Replace(Regex(_INVISIBLE), ""),
        normalizers.NFC(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]


def normalize(text: str) -> str:
    """Return `text` normalized. Normalizing again changes nothing."""
    return _NORMALIZER.normalize_str(text)


def with_normalizer(tokenizer: Tokenizer) -> Tokenizer:
    """Add the normalizer to `tokenizer`, before its own one, unless it is already there; return `tokenizer`."""
    present = json.loads(tokenizer.to_str())["normalizer"] or {}
    if present.get("normalizers", [])[: len(_AS_JSON)] == _AS_JSON:
        return tokenizer
    own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence([*normalizer_steps(), *own])
    return tokenizer


def _as_json() -> list[dict[str, object]]:
    """Return the steps as in tokenizer.json; `tokenizers` serializes them only as part of a tokenizer."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = _NORMALIZER
    return json.loads(tokenizer.to_str())["normalizer"]["normalizers"]


_NORMALIZER = normalizers.Sequence(normalizer_steps())
_AS_JSON = _as_json()

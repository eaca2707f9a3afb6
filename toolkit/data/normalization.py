"""One form for every text, as a `tokenizers` normalizer.

It is stored inside `tokenizer.json`, so training, the shipped package and any other runtime that
reads that file treat a text alike. The corpus uses the same object to find duplicates.
"""

import json

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.models import BPE

# Characters that change how a text looks or is encoded but not what it says: controls, soft hyphen,
# zero-width space and (non-)joiners, direction marks, byte-order mark. A joiner is dropped and not
# turned into a space, because inside a Bangla conjunct (ra + joiner + ya-phala) a space would cut the word.
_INVISIBLE = "[\u0000-\u0008\u000e-\u001f\u007f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"


def normalizer_steps() -> list[normalizers.Normalizer]:
    """Invisible characters dropped, Unicode NFC, every run of white space one space, none at the ends.

    NFC gives the Bangla nukta letters one spelling (U+09DF becomes U+09AF U+09BC: these letters are
    composition exclusions of Unicode) and joins split vowel signs (U+09C7 U+09BE becomes U+09CB).
    It runs after the invisible characters are gone, since those keep letters from composing.
    """
    return [
        normalizers.Replace(Regex(_INVISIBLE), ""),
        normalizers.NFC(),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]


def normalize(text: str) -> str:
    """`text` in the project's form. Applying it twice changes nothing."""
    return _NORMALISER.normalize_str(text)


def with_normalizer(tokenizer: Tokenizer) -> Tokenizer:
    """`tokenizer` with the project's normalizer in front of its own; unchanged if it is there already."""
    present = json.loads(tokenizer.to_str())["normalizer"] or {}
    if present.get("normalizers", [])[: len(_AS_JSON)] == _AS_JSON:
        return tokenizer
    own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence([*normalizer_steps(), *own])
    return tokenizer


def _as_json() -> list[dict[str, object]]:
    """The steps as they stand in a tokenizer.json; `tokenizers` gives them only as part of a tokenizer."""
    carrier = Tokenizer(BPE())
    carrier.normalizer = _NORMALISER
    return json.loads(carrier.to_str())["normalizer"]["normalizers"]


_NORMALISER = normalizers.Sequence(normalizer_steps())
_AS_JSON = _as_json()

"""Text normalization, as a `tokenizers` normalizer.

It is stored in `tokenizer.json`, so training, the package and any other runtime that reads this file normalize texts in
the same way. The corpus uses the same normalizer to find duplicates.
"""

import json
import re
import unicodedata

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.models import BPE

from toolkit.utils.console import bar

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
    if _UNCHANGED.fullmatch(text):  # found out sooner than by the normalizer
        return text
    found = _NORMALIZER.normalize_str(text)
    return text if found == text else found  # one string in memory instead of two


def duplicate_key(text: str) -> str:
    """Return the key that duplicates share: the normalized text in lower case, with only its letters and digits."""
    return key_of_normalized(normalize(text))


def key_of_normalized(text: str) -> str:
    """Return the duplicate key of a text that is normalized; it is empty if the text is."""
    plain = text.casefold()
    return " ".join(plain.translate(_WORDS).split()) or plain


def duplicate_keys(texts: list[str]) -> list[str]:
    """Return the duplicate key of each text, with a progress bar."""
    keys: list[str] = []
    with bar("finding duplicates", len(texts)) as advance:
        for start in range(0, len(texts), _STEP):
            keys += map(duplicate_key, texts[start : start + _STEP])
            advance(len(keys) - start)
    return keys


class _Words(dict[int, int]):
    """A table for str.translate that keeps letters, digits and combining marks, and makes spaces of the rest."""

    def __missing__(self, code: int) -> int:
        self[code] = code if _is_part_of_word(chr(code)) else ord(" ")
        return self[code]


_WORDS = _Words()


def _is_part_of_word(char: str) -> bool:
    """Return whether `char` is a letter, a digit or a combining mark (vowel sign), but no variation selector."""
    if char.isalnum():
        return True
    return unicodedata.category(char) in ("Mn", "Mc") and not "\ufe00" <= char <= "\ufe0f"


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


_STEP = 10_000
"""Rows between two steps of a progress bar."""
_UNCHANGED = re.compile("[!-~]+(?: [!-~]+)*")
"""Texts of visible ASCII characters and single spaces between them: no step has anything to do."""
_NORMALIZER = normalizers.Sequence(normalizer_steps())
_AS_JSON = _as_json()

"""A small table of pretrained encoders, by the script and language of the texts. It imports nothing heavy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.config.settings import ModelSettings

ENGLISH = frozenset(("the", "and", "of", "to", "is", "you", "it", "for", "that", "with"))
"""Frequent words that hardly any other language in Latin script has."""
LEAST = {"Bengali": 0.5, "Latin": 0.9}
"""Least share of the letters that decides for an encoder of this script."""
ENGLISH_SHARE = 0.04
"""Least share of ENGLISH words in English texts; tweets have about 0.1."""


@dataclass(frozen=True)
class KnownEncoder:
    """An encoder, and the texts that it was pretrained on."""

    model: str
    """Hub id."""
    language: str


BANGLA = KnownEncoder(ModelSettings.model, "Bangla")
LATIN = KnownEncoder("sentence-transformers/all-MiniLM-L6-v2", "English")
MULTILINGUAL = KnownEncoder("intfloat/multilingual-e5-small", "many languages")


def encoder_for(script_shares: dict[str, float], texts: Sequence[str]) -> KnownEncoder:
    """Return the encoder for texts with these shares of scripts (`toolkit.data.profile.script_shares`)."""
    if script_shares["Bengali"] >= LEAST["Bengali"]:
        return BANGLA
    if script_shares["Latin"] >= LEAST["Latin"] and _english_share(texts) >= ENGLISH_SHARE:
        return LATIN
    return MULTILINGUAL


def unfit_encoder(model: str, texts: list[str]) -> str:
    """Return why a known encoder does not fit these texts, and which one does; empty if it fits or is not known."""
    known = next((each for each in (BANGLA, LATIN) if each.model == model), None)
    if known is None:
        return ""
    from toolkit.data.profile import script_shares

    shares = script_shares(texts)
    better = encoder_for(shares, texts)
    if better == known:
        return ""
    script = max(shares, key=shares.__getitem__)
    return (
        f"--model {model}: is for texts in {known.language}, and {shares[script]:.0%} of the letters here are "
        f"{script}; --model {better.model} is for {better.language}"
    )


def _english_share(texts: Sequence[str]) -> float:
    words = [word for text in texts for word in re.findall(r"\w+", text.casefold())]
    return sum(word in ENGLISH for word in words) / max(len(words), 1)

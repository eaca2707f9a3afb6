"""What a loader is given to classify."""

from __future__ import annotations

from collections.abc import Sequence


def checked_texts(texts: Sequence[str]) -> list[str]:
    """Return a list of the texts, each surrogate without its other half replaced by U+FFFD.

    Raises: ValueError if `texts` is one text, or one of them is not a str.
    """
    if isinstance(texts, (str, bytes)):
        raise ValueError("expected a list of texts, not one text: write predict([text])")
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise ValueError(f"texts[{i}] is not a str but {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError:
            found[i] = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return found

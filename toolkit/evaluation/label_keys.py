"""Names of labels as part of metric names and column titles: safe for every store, unique, and reversible.

A label can be any text: `C` beside `c`, `km/h`, `a|b`, or Bangla, whose vowel signs MLflow does not accept.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

LONGEST_KEY = 120
"""Characters; MLflow accepts 250 for a name, of which the label is one part."""
_ESCAPED = re.compile(r"\.([0-9a-f]+)\.")


def label_keys(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the part of a metric name for each label: the label itself if it is plain.

    Plain are letters, digits, underscores, hyphens and single spaces inside. Any other character is its code point in
    hexadecimal between dots: `km.2f.h`. So are the capitals of labels that differ only in case, and the first letter of
    `negative` if it is the second of two labels, since `f1_negative` is the F1 of the first.
    A key of more than LONGEST_KEY characters is cut and ends with a hash.
    """
    folded = Counter(label.casefold() for label in labels)
    keys = []
    for i, label in enumerate(labels):
        key = "".join(
            char
            if _is_plain(label, place) and (folded[label.casefold()] == 1 or char == char.casefold())
            else _code(char)
            for place, char in enumerate(label)
        )
        if len(labels) == 2 and i == 1 and key.casefold() == "negative":
            key = _code(key[0]) + key[1:]
        keys.append(key if len(key) <= LONGEST_KEY else _cut(key, label))
    return tuple(keys)


def label_of(key: str) -> str:
    """Return the label of a key that is not cut."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), key)


def label_titles(labels: Sequence[str]) -> tuple[str, ...]:
    """Return each label as a column title: `Non-Hate` for `non_hate`.

    Its key instead, if it contains other characters than letters, digits, underscores, hyphens and spaces, or if
    another label has the same title.
    """
    titles = ["" if len(label) > LONGEST_KEY else _title(label) for label in labels]
    taken = Counter(_same(title) for title in titles)
    keys = label_keys(labels)
    return tuple(title if title and taken[_same(title)] == 1 else key for title, key in zip(titles, keys, strict=True))


def _title(label: str) -> str:
    """Return the title of a label, or nothing if characters would be lost."""
    if not all(char in "_- " or unicodedata.category(char)[0] in "LMN" for char in label):
        return ""
    return "-".join(part for part in re.split(r"[_ ]+", label) if part).title()


def _same(title: str) -> str:
    return unicodedata.normalize("NFKC", title).casefold()


def _is_plain(label: str, place: int) -> bool:
    char = label[place]
    if char == " ":
        return 0 < place < len(label) - 1 and label[place - 1] != " "
    return char == "-" or re.fullmatch(r"\w", char) is not None


def _code(char: str) -> str:
    return f".{ord(char):x}."


def _cut(key: str, label: str) -> str:
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{key[: LONGEST_KEY - 14]}..{digest}"

"""Small changes of texts that a person would not mind, to see whether labels flip: fixed, and drawn from a seed.

Each changes about one word in five, at least one, if the text has a place for it. A change that fits no script of a
text, such as capitals in Bangla, leaves the text as it is.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

CHANGED_WORDS = 0.2
EMOJI = ("🙂", "😂", "🔥", "👍", "❤️")
MARKS = ("!!", "...", "?!", ",")
HOMOGLYPHS = str.maketrans("aceopxyiABCEHKMOPTXаеорсух", "асеорхуіАВСЕНКМОРТХaeopcyx") | str.maketrans("রব", "ৰৱ")
"""Latin and Cyrillic letters that look alike, in both directions, and Bangla letters and their Assamese twins."""
DIGITS = str.maketrans("aeiostAEIOST", "431057431057")
ZERO_WIDTH = ("\u200b", "\u200c", "\u2060")

Random = np.random.Generator
Change = Callable[[str, Random], str]
"""A word and the source of chance -> the changed word."""


def perturbed(texts: Sequence[str], name: str) -> list[str]:
    """Return the texts with one kind of change, a name of PERTURBATIONS; the same for the same text, wherever it is."""
    change = PERTURBATIONS[name]
    return [change(text, np.random.default_rng(_seed(name, text))) for text in texts]


def _seed(name: str, text: str) -> int:
    digest = hashlib.sha256(f"{name}\0{text}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:16], "big")


def _in_words(change: Change) -> Change:
    """Return the change of a text that changes some of its words; words that it leaves as they are do not count."""

    def apply(text: str, random: Random) -> str:
        words = text.split(" ")
        wanted = max(1, round(CHANGED_WORDS * len(words)))
        for place in random.permutation(len(words)):
            changed = change(words[place], random)
            wanted -= changed != words[place]
            words[place] = changed
            if not wanted:
                break
        return " ".join(words)

    return apply


def _letter(word: str, random: Random) -> int | None:
    """Return the place of a letter inside a word, not its first; None if there is none."""
    places = [i for i, char in enumerate(word) if i and char.isalpha()]
    return int(random.choice(places)) if places else None


def _typo(word: str, random: Random) -> str:
    """Replace a letter by another one nearby in its alphabet."""
    place = _letter(word, random)
    if place is None:
        return word
    near = [chr(ord(word[place]) + step) for step in (-2, -1, 1, 2)]
    fitting = [char for char in near if unicodedata.category(char) == unicodedata.category(word[place])]
    return word[:place] + str(random.choice(fitting)) + word[place + 1 :] if fitting else word


def _dropped(word: str, random: Random) -> str:
    place = _letter(word, random)
    return word if place is None else word[:place] + word[place + 1 :]


def _doubled(word: str, random: Random) -> str:
    place = _letter(word, random)
    return word if place is None else word[:place] + word[place] + word[place:]


def _added_space(word: str, random: Random) -> str:
    place = _letter(word, random)
    return word if place is None else f"{word[:place]} {word[place:]}"


def _zero_width(word: str, random: Random) -> str:
    place = _letter(word, random)
    return word if place is None else word[:place] + str(random.choice(ZERO_WIDTH)) + word[place:]


def _removed_space(text: str, random: Random) -> str:
    places = [i for i, char in enumerate(text) if char == " " and 0 < i < len(text) - 1]
    if not places:
        return text
    gone = set(random.choice(places, max(1, round(CHANGED_WORDS * len(places))), replace=False).tolist())
    return "".join(char for i, char in enumerate(text) if i not in gone)


def _capitals(text: str, random: Random) -> str:
    return text.upper() if text != text.upper() else text.lower()


def _no_punctuation(text: str, random: Random) -> str:
    return "".join(char for char in text if not unicodedata.category(char).startswith("P"))


PERTURBATIONS: dict[str, Change] = {
    "typo": _in_words(_typo),
    "dropped letter": _in_words(_dropped),
    "doubled letter": _in_words(_doubled),
    "removed space": _removed_space,
    "added space": _in_words(_added_space),
    "homoglyph": _in_words(lambda word, random: word.translate(HOMOGLYPHS)),
    "digit for letter": _in_words(lambda word, random: word.translate(DIGITS)),
    "other case": _capitals,
    "no punctuation": _no_punctuation,
    "more punctuation": lambda text, random: f"{text}{random.choice(MARKS)}",
    "zero-width character": _in_words(_zero_width),
    "emoji added": lambda text, random: f"{text} {random.choice(EMOJI)}",
}

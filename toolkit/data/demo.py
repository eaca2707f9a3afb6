"""The embedded corpus: short synthetic Bangla comments on food, films, buses, phones and cricket.

It is harmless, so every command can be tried without data. Label 0 is `approval`, label 1 is `complaint`. A bag of
character n-grams cannot solve it: about one comment in three contains positive and negative words, or a negated one,
and the label depends on their scope (column `kind`):

- plain: one judgment, or two that agree;
- negated: "not bad", "cannot be called good";
- contrast: "A is good but B is bad": the label is that of the last clause;
- concession: "although A is bad, B is good", in either order: the label is that of the main clause;
- change: "used to be bad, now it is good", in either order: the label is that of the present.

The corpus also has misspellings, a fraction `LABEL_NOISE` of wrong labels (so no classifier should score above about
0.97) and a fraction `COPIES` of rows that repeat an earlier row with other spacing, punctuation or code points. Every
choice is derived from the SHA-256 of the row number, so the rows are the same on every machine and version.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from toolkit.data.tables import Table

ROWS = 3000
LABEL_NOISE = 0.03
"""Fraction of the rows whose label is flipped."""
COPIES = 0.04
"""Fraction of the rows that repeat an earlier row."""
MISSPELLINGS = 0.15
"""Fraction of the rows with one misspelled word."""

DEMO_LABEL_NAMES = ("approval", "complaint")
KINDS = {"plain": 64, "negated": 13, "contrast": 12, "concession": 5, "change": 6}
"""Kind to its percentage of the rows."""
COMPLAINTS = {"plain": 0.44, "negated": 0.8, "contrast": 0.7, "concession": 0.5, "change": 0.5}
"""Kind to its fraction of complaints: "not good" is more frequent than "not bad"."""

T = TypeVar("T")


def demo_table() -> Table:
    """Return the corpus as a table with the columns text, label, kind and topic."""
    rows: list[tuple[str, bool, str, str]] = []
    for number in range(ROWS):
        dice = _Dice(number)
        if number > 100 and dice.chance(COPIES):
            text, complaint, kind, topic = rows[dice.below(number)]
            text = _copied(text, dice)
        else:
            kind = dice.pick([kind for kind, share in KINDS.items() for _ in range(share)])
            topic = dice.pick(list(_ASPECTS))
            complaint = dice.chance(COMPLAINTS[kind])
            text = _decorated(_WRITERS[kind](topic, complaint, dice), topic, dice)
        rows.append((text, complaint, kind, topic))
    return Table(
        "demo",
        {
            "text": [text for text, _, _, _ in rows],
            "label": [
                DEMO_LABEL_NAMES[c != _Dice(n, "noise").chance(LABEL_NOISE)] for n, (_, c, _, _) in enumerate(rows)
            ],
            "kind": [kind for _, _, kind, _ in rows],
            "topic": [topic for _, _, _, topic in rows],
        },
    )


class _Dice:
    """Reproducible random choices, seeded by the row number."""

    def __init__(self, row: int, purpose: str = "text") -> None:
        self.seed, self.count = f"{purpose} {row}", 0

    def below(self, limit: int) -> int:
        self.count += 1
        digest = hashlib.sha256(f"demo {self.seed} {self.count}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % limit

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def chance(self, share: float) -> bool:
        return self.below(1000) < round(1000 * share)


def _plain(topic: str, complaint: bool, dice: _Dice) -> str:
    first, second = _two_aspects(topic, dice)
    if dice.chance(0.6):
        return _judgment(first, complaint, dice)
    return f"{_judgment(first, complaint, dice)}{dice.pick(_AND)} {_judgment(second, complaint, dice)}"


def _negated(topic: str, complaint: bool, dice: _Dice) -> str:
    first, second = _two_aspects(topic, dice)
    if dice.chance(0.7):
        return _negation(first, complaint, dice)
    return f"{_negation(first, complaint, dice)}{dice.pick(_AND)} {_judgment(second, complaint, dice)}"


def _contrast(topic: str, complaint: bool, dice: _Dice) -> str:
    first, second = _two_aspects(topic, dice)
    return f"{_judgment(first, not complaint, dice)} {dice.pick(_BUT)} {_judgment(second, complaint, dice)}"


def _concession(topic: str, complaint: bool, dice: _Dice) -> str:
    first, second = _two_aspects(topic, dice)
    main = _judgment(second, complaint, dice)
    variant = dice.below(3)
    if variant == 0:
        return f"{first} {_adjective(not complaint, dice)} হলেও {main}"
    side = _judgment(first, not complaint, dice)
    return f"যদিও {side}, {main}" if variant == 1 else f"{main}, যদিও {side}"


def _change(topic: str, complaint: bool, dice: _Dice) -> str:
    aspect = _two_aspects(topic, dice)[0]
    before = f"{dice.pick(_BEFORE)} {_adjective(not complaint, dice)} ছিল"
    now = f"{dice.pick(_NOW)} {_adjective(complaint, dice)}"
    return f"{aspect} {before}, {now}" if dice.chance(0.5) else f"{aspect} {now}, {before}"


def _judgment(aspect: str, complaint: bool, dice: _Dice) -> str:
    word = _adjective(complaint, dice)
    adverb = dice.pick(_ADVERBS if word in _GRADABLE else _ADVERBS_OF_EXTREMES)
    return f"{aspect} {adverb}{word}{dice.pick(_ENDS)}"


def _negation(aspect: str, complaint: bool, dice: _Dice) -> str:
    """Return a clause with a negated adjective of the other label."""
    word = dice.pick(_DENIED_GOOD if complaint else _DENIED_BAD)
    return f"{aspect} {dice.pick(_DENIALS).format(word)}"


def _adjective(complaint: bool, dice: _Dice) -> str:
    return dice.pick(_BAD if complaint else _GOOD)


def _two_aspects(topic: str, dice: _Dice) -> tuple[str, str]:
    aspects = _ASPECTS[topic]
    first = dice.below(len(aspects))
    second = (first + 1 + dice.below(len(aspects) - 1)) % len(aspects)
    return aspects[first] + dice.pick(_DEFINITE), aspects[second] + dice.pick(_DEFINITE)


def _decorated(text: str, topic: str, dice: _Dice) -> str:
    """Return `text` with an opening, an ending and sometimes a misspelled word."""
    if dice.chance(0.5):
        text = f"{dice.pick(_OPENINGS[topic])} {text}"
    elif dice.chance(0.5):
        text = f"{dice.pick(_ASIDES)} {text}"
    text += dice.pick(_FULL_STOPS)
    if dice.chance(0.2):
        text += f" {dice.pick(_TAILS)}"
    if dice.chance(MISSPELLINGS):
        present = [(right, wrong) for right, wrong in _MISSPELLED.items() if right in text]
        if present:
            text = text.replace(*dice.pick(present), 1)
    return text


def _copied(text: str, dice: _Dice) -> str:
    """Return a duplicate of `text` with other spacing, punctuation or code points."""
    changes = (
        text.replace(" ", "  ", 1),
        text.replace(" ", "\u00a0"),
        text.rstrip("।!. ") + dice.pick(("", "!!", " ...", " ।")),
        text.replace("\u09af\u09bc", "\u09df").replace("\u09a1\u09bc", "\u09dc"),
        text.replace(",", ""),
        "\ufeff" + text,
    )
    return dice.pick(changes)


_WRITERS = {
    "plain": _plain,
    "negated": _negated,
    "contrast": _contrast,
    "concession": _concession,
    "change": _change,
}

_ASPECTS = {
    "food": ("খাবার", "বিরিয়ানি", "সার্ভিস", "পরিবেশ", "ডাল", "মাংস", "চা", "রুটি"),
    "film": ("গল্প", "অভিনয়", "গান", "সংলাপ", "চিত্রগ্রহণ", "সম্পাদনা", "আবহসংগীত", "শেষ দৃশ্য"),
    "bus": ("সিট", "এসি", "চালকের ব্যবহার", "বাসের অবস্থা", "কাউন্টারের সেবা", "বিরতির হোটেল", "সহকারীর আচরণ", "জানালার পর্দা"),
    "phone": ("ক্যামেরা", "ব্যাটারি", "ডিসপ্লে", "স্পিকার", "চার্জার", "গড়ন", "নেটওয়ার্ক", "সফটওয়্যার"),
    "cricket": ("ব্যাটিং", "বোলিং", "ফিল্ডিং", "অধিনায়কত্ব", "ওপেনিং জুটি", "স্পিন আক্রমণ", "পিচ", "ধারাভাষ্য"),
}
_OPENINGS = {
    "food": ("কাল রাতে বন্ধুদের নিয়ে খেতে গিয়েছিলাম,", "অনলাইনে অর্ডার করেছিলাম,", "অফিসের পাশের হোটেলে দুপুরে খেলাম,"),
    "film": ("গতকাল হলে গিয়ে ছবিটা দেখলাম,", "ঈদের ছবিটা দেখে এলাম,", "বাড়ির সবাই মিলে সিনেমাটা দেখলাম,"),
    "bus": ("ঢাকা থেকে সিলেট গেলাম এই বাসে,", "রোজ এই রুটে যাতায়াত করি,", "ছুটিতে বাসে করে বাড়ি ফিরলাম,"),
    "phone": ("দুই মাস ধরে ফোনটা চালাচ্ছি,", "গত সপ্তাহে ফোনটা কিনেছি,", "ছোট ভাইয়ের জন্য ফোনটা নিলাম,"),
    "cricket": ("গতকালের ম্যাচটা পুরোটা দেখলাম,", "মাঠে বসে খেলা দেখলাম,", "সিরিজের প্রথম ম্যাচটা দেখলাম,"),
}
_ASIDES = ("সত্যি বলতে", "আমার মতে", "ভাই,", "এক কথায়", "যা দেখলাম,")
_GOOD = ("ভালো", "দারুণ", "চমৎকার", "অসাধারণ", "সুন্দর", "মনের মতো", "সন্তোষজনক", "মানসম্মত")
_BAD = ("খারাপ", "বাজে", "জঘন্য", "হতাশাজনক", "বিরক্তিকর", "নিম্নমানের", "মন্দ", "যাচ্ছেতাই")
_GRADABLE = ("ভালো", "সুন্দর", "খারাপ", "বাজে", "হতাশাজনক", "বিরক্তিকর", "নিম্নমানের")
_DENIED_GOOD = ("ভালো", "সুন্দর", "মানসম্মত", "মনের মতো", "সন্তোষজনক")
_DENIED_BAD = ("খারাপ", "বাজে", "মন্দ", "হতাশাজনক", "বিরক্তিকর", "নিম্নমানের")
_DENIALS = ("{} না", "মোটেও {} না", "একদমই {} ছিল না", "{} লাগেনি", "{} মনে হয়নি", "{} বলা যাবে না")
_ADVERBS = ("", "", "খুব ", "বেশ ", "সত্যিই ")
_ADVERBS_OF_EXTREMES = ("", "", "", "সত্যিই ")
_ENDS = ("", "", " ছিল", " লেগেছে", " মনে হয়েছে")
_DEFINITE = ("", "", "টা")
_AND = (" আর", ",", " এবং")
_BUT = ("কিন্তু", "তবে", "অথচ")
_BEFORE, _NOW = ("আগে", "শুরুতে", "গত বছর"), ("এখন", "এবার", "ইদানীং")
_FULL_STOPS = ("।", "।", "", "!", ".")
_TAILS = ("🙂", "এটাই আমার মত।", "বাকিটা আপনারা দেখুন।", "📝", "ধন্যবাদ।")
_MISSPELLED = {
    "ভালো": "ভাল",
    "দারুণ": "দারুন",
    "চমৎকার": "চমতকার",
    "অসাধারণ": "অসাধারন",
    "জঘন্য": "জগন্য",
    "খারাপ": "খারাফ",
    "বিরক্তিকর": "বিরক্তকর",
    "সুন্দর": "সুন্দড়",
    "কিন্তু": "কিন্তূ",
    "সার্ভিস": "service",
    "ক্যামেরা": "camera",
    "ব্যাটারি": "ব্যাটারী",
    "ব্যাটিং": "batting",
    "এসি": "AC",
}

DEMO_SENTENCES = (
    "খাবারটা মোটেও খারাপ না, আবার আসব।",
    "ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে 😡🔋",
    "Service টা just amazing ছিল, thanks a lot! 🙏🏽",
    "বাসের\u00a0সিট\u00a0\u00a0ভালো,  এসি\tচলেনি।",  # no-break spaces, double spaces, a tab
    "আষা\u09dd মাসে গা\u09dcিটা সম\u09dfমতো ছে\u09dcেছে, বিষ\u09dfটা ভালো লেগেছে।",  # precomposed nukta letters
    "আইসিসির র\u200d্যাঙ্কিংয়ে দলটা এখন আগের চেয়ে উপরে\u200b।",  # a joiner inside a conjunct, a zero-width space
    "The bus was late, but the driver was kind.",
    "দারুণ!!!",
    " ".join(f"{n} নম্বর ম্যাচে ব্যাটিং ভালো ছিল কিন্তু ফিল্ডিং খারাপ ছিল।" for n in range(1, 41)),
)
"""Harmless texts that packages store as golden texts: mixed scripts, emoji, unusual spaces and code points, and one
text of 400 words. They are not rows of the corpus."""

"""Which pieces of a vocabulary texts need, and the tokenizer cut to those: WordPiece, BPE and Unigram.

Why the pieces of the texts cannot move, model by model: a winner among all pieces is still the winner among
fewer, if nothing that scores candidates changes. That asks for more than the pieces themselves:

- Unigram charges an unknown character by the lowest score of the vocabulary, so the piece of that score stays.
- BPE reaches a piece through merges, so the pieces on the way stay, with their merges.
- WordPiece gives up on a word only after a greedy walk, so the pieces walked over in unknown words stay.
"""

import copy
import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

from tokenizers import Tokenizer

from toolkit.utils.errors import InputError

OPTION = "--trim-vocabulary"
MEND = f"leave {OPTION} out"
WORD_START = "▁"
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
PLACEHOLDER = re.compile(r"\W*(unused|madeupword)_?\d+\W*")
"""Pieces that were reserved and never trained: the last to fill up with."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer taken apart."""

    tokenizer: Tokenizer
    spec: dict[str, Any]
    """Its tokenizer.json. Not to be changed: copy it."""
    ids: dict[str, int]
    """Piece to id, added tokens among them."""
    pieces: dict[int, str]
    ranks: dict[tuple[str, str], int]
    """BPE: pair to the rank of its merge."""
    unknown: int | None
    always: frozenset[int]
    """Ids that no choice of texts takes away."""
    byte_level: bool

    @property
    def model(self) -> dict[str, Any]:
        return self.spec["model"]


def read_vocabulary(tokenizer: Tokenizer, pad_id: int, embeddings: int, position_offset: int) -> Vocabulary:
    """`tokenizer` taken apart.

    embeddings: rows of the matrix behind it. position_offset: the last id that must keep its number, or -1.
    Raises: InputError if it is of a kind that cannot be cut.
    """
    spec = json.loads(tokenizer.to_str())
    model, ids = spec["model"], tokenizer.get_vocab()
    if model["type"] not in ("WordPiece", "BPE", "Unigram"):
        raise InputError(f"{OPTION}: a {model['type']} tokenizer cannot be cut; {MEND}")
    if max(ids.values()) >= embeddings:
        raise InputError(f"{OPTION}: the tokenizer has more pieces than the model has embeddings; {MEND}")
    unknown = model["unk_id"] if model["type"] == "Unigram" else ids.get(model["unk_token"])
    byte_level = any('"ByteLevel"' in json.dumps(spec[part]) for part in ("pre_tokenizer", "normalizer"))
    always = {token["id"] for token in spec["added_tokens"]} | {pad_id}
    always |= {slots[i] for slots, i in _id_slots(spec["post_processor"])}
    always |= set() if unknown is None else {unknown}
    always |= set(range(position_offset + 1))
    if model.get("byte_fallback"):
        always |= {i for piece, i in ids.items() if BYTE_PIECE.fullmatch(piece)}
    if byte_level:
        always |= {ids[char] for char in _BYTE_OF if char in ids}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        always.add(scores.index(min(scores)))  # the unknown character is charged relative to it
    if not always <= set(ids.values()):
        raise InputError(f"{OPTION}: the tokenizer refers to ids that no piece has; {MEND}")
    ranks = {tuple(pair): rank for rank, pair in enumerate(model.get("merges", []))}
    pieces = {i: piece for piece, i in ids.items()}
    return Vocabulary(tokenizer, spec, ids, pieces, ranks, unknown, frozenset(always), byte_level)


def needed_pieces(whole: Vocabulary, plain: Sequence[str], encoded: Sequence[Sequence[int]]) -> set[int]:
    """Ids without which a text would change its pieces or a letter of its scripts be unknown."""
    used = set(chain.from_iterable(encoded)) | whole.always | _alphabet(whole, set().union(*plain))
    if whole.model["type"] == "WordPiece":
        for text, ids in zip(plain, encoded, strict=True):
            if whole.unknown in ids:
                used |= _greedy_walk(whole, text)
    return used.union(*(_way_to(whole, i) for i in used))


def fill_up(whole: Vocabulary, needed: set[int], plain: Sequence[str], size: int) -> set[int]:
    """`needed` and the commonest further ids, `size` together; pieces in scripts of the texts come first.

    Raises: InputError if `needed` is more than `size`.
    """
    if size and size < len(needed):
        raise InputError(
            f"{OPTION} {size}: the texts need {len(needed)} pieces; give that many or more, or no number for just those"
        )
    if size <= len(needed):
        return needed
    if size >= len(whole.ids):
        return set(whole.pieces)
    kept, model, scripts = set(needed), whole.model, _scripts(set().union(*plain))
    scores = {i: score for i, (_, score) in enumerate(model["vocab"])} if model["type"] == "Unigram" else {}

    def rank(i: int) -> tuple[bool, bool, float, int]:
        piece = whole.pieces[i]
        foreign = not _scripts({char for char in _bare(whole, piece) if char.isalpha()}) <= scripts
        return PLACEHOLDER.fullmatch(piece) is not None, foreign, -scores.get(i, 0.0), i

    further = sorted(whole.pieces.keys() - needed, key=rank)
    before = -1
    while before < len(kept) < size:  # again, since the way to a piece may have been too long for the room left
        before = len(kept)
        for i in further:
            way = (_way_to(whole, i) | {i}) - kept
            if len(kept) + len(way) <= size:
                kept |= way
    return kept


def _alphabet(whole: Vocabulary, seen: set[str]) -> set[int]:
    """Ids of single characters: those seen, those of a script seen, and signs that belong to no script."""
    single = {i: char for piece, i in whole.ids.items() if len(char := _bare(whole, piece)) == 1}
    scripts = _scripts(seen)
    lettered = _scripts({char for char in single.values() if char.isalpha()})

    def stays(char: str) -> bool:
        script = _scripts(char)
        sign = unicodedata.category(char)[0] in "NPS" and not script & lettered
        return char in seen or sign or bool(script & scripts)

    return {i for i, char in single.items() if stays(char)}


def _scripts(chars: Collection[str]) -> set[str]:
    """First words of the names of `chars`, which tell the script ("BENGALI LETTER KA"); unnamed ones have none."""
    return {unicodedata.name(char, "").partition(" ")[0] for char in chars} - {""}


def _bare(whole: Vocabulary, piece: str) -> str:
    """What a piece says, without the marks of its place in a word; "" for part of a character."""
    if whole.byte_level and all(char in _BYTE_OF for char in piece):
        try:
            piece = bytes(_BYTE_OF[char] for char in piece).decode()
        except UnicodeDecodeError:
            return ""
        return piece.removeprefix(" ") or piece
    piece = piece.removeprefix(whole.model.get("continuing_subword_prefix") or "")
    piece = piece.removesuffix(whole.model.get("end_of_word_suffix") or "")
    return piece.removeprefix(WORD_START) or piece


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in a byte-level vocabulary (Radford et al. 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _way_to(whole: Vocabulary, i: int) -> set[int]:
    """BPE: ids of the pieces that the merges go through on the way to piece `i`; else none.

    Inside a word they are the same as for the piece alone, because no merge that won there crossed its ends.
    """
    if not whole.ranks:
        return set()
    prefix, suffix = (whole.model[name] or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    piece = whole.pieces[i]
    first = prefix if piece.startswith(prefix) else ""
    last = suffix if piece.endswith(suffix) else ""
    chars = piece.removeprefix(first).removesuffix(last)
    parts = [(prefix if at else first) + char for at, char in enumerate(chars)]
    parts[-1:] = [part + last for part in parts[-1:]]
    passed = set(parts)
    while True:
        ranked = ((whole.ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in whole.ranks)
        _, at = min(ranked, default=(0, -1))
        if at < 0:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1].removeprefix(prefix)]
        passed.add(parts[at])
    return {whole.ids[part] for part in passed if part in whole.ids} if parts == [piece] else set()


def _greedy_walk(whole: Vocabulary, text: str) -> set[int]:
    """WordPiece: ids tried in the words of a normalized text, those of words that end up unknown among them."""
    walked = set()
    prefix = whole.model["continuing_subword_prefix"]
    splitter = whole.tokenizer.pre_tokenizer
    for word, _ in [(text, None)] if splitter is None else splitter.pre_tokenize_str(text):
        start = 0
        while start < len(word) <= whole.model["max_input_chars_per_word"]:
            spans = ((end, prefix * (start > 0) + word[start:end]) for end in range(len(word), start, -1))
            start, piece = next(((end, piece) for end, piece in spans if piece in whole.ids), (len(word), ""))
            walked |= {whole.ids[piece]} if piece else set()
    return walked


def cut_tokenizer(whole: Vocabulary, keep: Collection[int]) -> tuple[Tokenizer, list[int]]:
    """The tokenizer with the ids `keep` alone, numbered anew in their old order, and the old id of each new one."""
    spec = {part: copy.deepcopy(value) for part, value in whole.spec.items() if part != "model"}
    model = spec["model"] = dict(whole.model)
    kept = sorted(keep)
    new_id = {old: new for new, old in enumerate(kept)}
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][i] for i in kept if i < len(model["vocab"])]
        model["unk_id"] = None if whole.unknown is None else new_id[whole.unknown]
    else:
        model["vocab"] = {piece: new_id[i] for piece, i in model["vocab"].items() if i in new_id}
    if model["type"] == "BPE":
        prefix, there = model["continuing_subword_prefix"] or "", model["vocab"]
        model["merges"] = [
            [a, b] for a, b in model["merges"] if a in there and b in there and a + b.removeprefix(prefix) in there
        ]
    for token in spec["added_tokens"]:
        token["id"] = new_id[token["id"]]
    for slots, i in _id_slots(spec["post_processor"]):
        slots[i] = new_id[slots[i]]
    spec["padding"] = None  # a Classifier pads by itself
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    if tokenizer.get_vocab() != {whole.pieces[old]: new for new, old in enumerate(kept)}:
        raise InputError(f"{OPTION}: the pieces of this tokenizer cannot be numbered anew; {MEND}")
    return tokenizer, kept


def _id_slots(processor: dict[str, Any] | None) -> Iterator[tuple[list[Any], int]]:
    """Where a post-processor holds ids: list and index."""
    for part in (processor or {}).get("processors", []):
        yield from _id_slots(part)
    for token in (processor or {}).get("special_tokens", {}).values():
        yield from ((token["ids"], i) for i in range(len(token["ids"])))
    if processor and processor["type"] in ("BertProcessing", "RobertaProcessing"):
        yield from ((processor[name], 1) for name in ("cls", "sep"))


def encode_whole(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text at full length, without the special tokens of the template."""
    uncut = Tokenizer.from_str(tokenizer.to_str())
    uncut.no_truncation()
    return [encoding.ids for encoding in uncut.encode_batch_fast(list(texts), add_special_tokens=False)]


def normalized(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Each text as the normalizer of `tokenizer` leaves it."""
    return [text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text) for text in texts]

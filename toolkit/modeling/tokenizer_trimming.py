"""Find the pieces of a vocabulary that the texts need, and trim the tokenizer to them: WordPiece, BPE and Unigram.

The segmentation of the texts stays the same as long as all pieces that decide it stay. Besides the pieces of the
texts, these are:

- Unigram: the piece with the lowest score, because the score of unknown characters is derived from it.
- BPE: the intermediate pieces from which a piece is merged, with their merges.
- WordPiece: the pieces matched in words that turn out to be unknown, because matching is greedy.
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
from toolkit.utils.letters import script_name

OPTION = "--trim-vocabulary"
FIX = f"leave {OPTION} out"
WORD_START = "▁"
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
PLACEHOLDER = re.compile(r"\W*(unused|madeupword)_?\d+\W*")
"""Reserved pieces that were never trained; `fill_up` adds them last."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer and its parsed vocabulary."""

    tokenizer: Tokenizer
    spec: dict[str, Any]
    """Content of tokenizer.json; do not modify it."""
    ids: dict[str, int]
    """Piece to id, with added tokens."""
    pieces: dict[int, str]
    """Id to piece."""
    ranks: dict[tuple[str, str], int]
    """BPE: pair to the rank of its merge; empty for other models."""
    unknown: int | None
    """Id of the unknown piece."""
    always: frozenset[int]
    """Ids that are kept for any texts."""
    byte_level: bool

    @property
    def model(self) -> dict[str, Any]:
        return self.spec["model"]


def read_vocabulary(tokenizer: Tokenizer, pad_id: int, embeddings: int, position_offset: int) -> Vocabulary:
    """Parse the vocabulary of `tokenizer`.

    embeddings: rows of the model's embedding matrix. position_offset: ids up to this one must not change, or -1.
    Raises: InputError if the tokenizer cannot be trimmed.
    """
    spec = json.loads(tokenizer.to_str())
    model, ids = spec["model"], tokenizer.get_vocab()
    if model["type"] not in ("WordPiece", "BPE", "Unigram"):
        raise InputError(f"{OPTION}: a {model['type']} tokenizer cannot be trimmed; {FIX}")
    if max(ids.values()) >= embeddings:
        raise InputError(f"{OPTION}: the tokenizer has more pieces than the model has embeddings; {FIX}")
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
        always.add(scores.index(min(scores)))  # the score of unknown characters is relative to it
    if not always <= set(ids.values()):
        raise InputError(f"{OPTION}: the tokenizer refers to ids without a piece; {FIX}")
    ranks = {tuple(pair): rank for rank, pair in enumerate(model.get("merges", []))}
    pieces = {i: piece for piece, i in ids.items()}
    return Vocabulary(tokenizer, spec, ids, pieces, ranks, unknown, frozenset(always), byte_level)


def needed_pieces(vocabulary: Vocabulary, plain: Sequence[str], encoded: Sequence[Sequence[int]]) -> set[int]:
    """Return the ids needed to keep the pieces of all texts, and all single letters of their scripts.

    plain: normalized texts. encoded: ids of each text, without truncation.
    """
    used = set(chain.from_iterable(encoded)) | vocabulary.always | _alphabet(vocabulary, set().union(*plain))
    if vocabulary.model["type"] == "WordPiece":
        for text, ids in zip(plain, encoded, strict=True):
            if vocabulary.unknown in ids:
                used |= _greedy_matches(vocabulary, text)
    return used.union(*(_merge_path(vocabulary, i) for i in used))


def fill_up(vocabulary: Vocabulary, needed: set[int], plain: Sequence[str], size: int) -> set[int]:
    """Return `needed` and the most frequent other ids, `size` in total; pieces in scripts of the texts come first.

    Raises: InputError if `size` is less than the number of needed ids.
    """
    if size and size < len(needed):
        raise InputError(
            f"{OPTION} {size}: the texts need {len(needed)} pieces; use {len(needed)} or more, or leave out the number"
        )
    if size <= len(needed):
        return needed
    if size >= len(vocabulary.ids):
        return set(vocabulary.pieces)
    kept, model, scripts = set(needed), vocabulary.model, _scripts(set().union(*plain))
    scores = {i: score for i, (_, score) in enumerate(model["vocab"])} if model["type"] == "Unigram" else {}

    def rank(i: int) -> tuple[bool, bool, float, int]:
        piece = vocabulary.pieces[i]
        foreign = not _scripts({char for char in _piece_text(vocabulary, piece) if char.isalpha()}) <= scripts
        return PLACEHOLDER.fullmatch(piece) is not None, foreign, -scores.get(i, 0.0), i

    others = sorted(vocabulary.pieces.keys() - needed, key=rank)
    before = -1
    while before < len(kept) < size:  # repeat: a piece whose merge path did not fit may fit after its parts were added
        before = len(kept)
        for i in others:
            added = (_merge_path(vocabulary, i) | {i}) - kept
            if len(kept) + len(added) <= size:
                kept |= added
    return kept


def _alphabet(vocabulary: Vocabulary, seen: set[str]) -> set[int]:
    """Return the ids of single characters: those seen, those of a script seen, and symbols without a script."""
    single = {i: char for piece, i in vocabulary.ids.items() if len(char := _piece_text(vocabulary, piece)) == 1}
    scripts = _scripts(seen)
    lettered = _scripts({char for char in single.values() if char.isalpha()})

    def keep(char: str) -> bool:
        script = _scripts(char)
        symbol = unicodedata.category(char)[0] in "NPS" and not script & lettered
        return char in seen or symbol or bool(script & scripts)

    return {i for i, char in single.items() if keep(char)}


def _scripts(chars: Collection[str]) -> set[str]:
    """Return the scripts of `chars`: the first words of their Unicode names ("BENGALI LETTER KA"), if they have one."""
    return {script_name(char) for char in chars} - {""}


def _piece_text(vocabulary: Vocabulary, piece: str) -> str:
    """Return the text of a piece without word-boundary markers; "" for an incomplete UTF-8 character."""
    if vocabulary.byte_level and all(char in _BYTE_OF for char in piece):
        try:
            piece = bytes(_BYTE_OF[char] for char in piece).decode()
        except UnicodeDecodeError:
            return ""
        return piece.removeprefix(" ") or piece
    piece = piece.removeprefix(vocabulary.model.get("continuing_subword_prefix") or "")
    piece = piece.removesuffix(vocabulary.model.get("end_of_word_suffix") or "")
    return piece.removeprefix(WORD_START) or piece


def _byte_alphabet() -> dict[str, int]:
    """Return the byte of each character of a byte-level vocabulary (Radford et al. 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _merge_path(vocabulary: Vocabulary, i: int) -> set[int]:
    """Return the ids of the intermediate pieces from which BPE merges piece `i`; empty for other models.

    They do not depend on the word around the piece, because none of its merges crosses the ends of the piece.
    """
    if not vocabulary.ranks:
        return set()
    prefix, suffix = (vocabulary.model[name] or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    piece = vocabulary.pieces[i]
    first = prefix if piece.startswith(prefix) else ""
    last = suffix if piece.endswith(suffix) else ""
    chars = piece.removeprefix(first).removesuffix(last)
    parts = [(prefix if index else first) + char for index, char in enumerate(chars)]
    parts[-1:] = [part + last for part in parts[-1:]]
    intermediate = set(parts)
    while True:
        ranked = (
            (vocabulary.ranks[pair], index) for index, pair in enumerate(pairwise(parts)) if pair in vocabulary.ranks
        )
        _, index = min(ranked, default=(0, -1))
        if index < 0:
            break
        parts[index : index + 2] = [parts[index] + parts[index + 1].removeprefix(prefix)]
        intermediate.add(parts[index])
    return {vocabulary.ids[part] for part in intermediate if part in vocabulary.ids} if parts == [piece] else set()


def _greedy_matches(vocabulary: Vocabulary, text: str) -> set[int]:
    """WordPiece: return the ids matched in the words of a normalized text, including words that become unknown."""
    matched = set()
    prefix = vocabulary.model["continuing_subword_prefix"]
    splitter = vocabulary.tokenizer.pre_tokenizer
    for word, _ in [(text, None)] if splitter is None else splitter.pre_tokenize_str(text):
        start = 0
        while start < len(word) <= vocabulary.model["max_input_chars_per_word"]:
            spans = ((end, prefix * (start > 0) + word[start:end]) for end in range(len(word), start, -1))
            start, piece = next(((end, piece) for end, piece in spans if piece in vocabulary.ids), (len(word), ""))
            matched |= {vocabulary.ids[piece]} if piece else set()
    return matched


def trim_tokenizer(vocabulary: Vocabulary, keep: Collection[int]) -> tuple[Tokenizer, list[int]]:
    """Return the tokenizer with only the ids `keep`, renumbered in their old order, and the old id of each new id."""
    spec = {part: copy.deepcopy(value) for part, value in vocabulary.spec.items() if part != "model"}
    model = spec["model"] = dict(vocabulary.model)
    kept = sorted(keep)
    new_id = {old: new for new, old in enumerate(kept)}
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][i] for i in kept if i < len(model["vocab"])]
        model["unk_id"] = None if vocabulary.unknown is None else new_id[vocabulary.unknown]
    else:
        model["vocab"] = {piece: new_id[i] for piece, i in model["vocab"].items() if i in new_id}
    if model["type"] == "BPE":
        prefix, vocab = model["continuing_subword_prefix"] or "", model["vocab"]
        model["merges"] = [
            [a, b] for a, b in model["merges"] if a in vocab and b in vocab and a + b.removeprefix(prefix) in vocab
        ]
    for token in spec["added_tokens"]:
        token["id"] = new_id[token["id"]]
    for slots, i in _id_slots(spec["post_processor"]):
        slots[i] = new_id[slots[i]]
    spec["padding"] = None  # a Classifier pads its batches itself
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    if tokenizer.get_vocab() != {vocabulary.pieces[old]: new for new, old in enumerate(kept)}:
        raise InputError(f"{OPTION}: the pieces of this tokenizer cannot be renumbered; {FIX}")
    return tokenizer, kept


def _id_slots(processor: dict[str, Any] | None) -> Iterator[tuple[list[Any], int]]:
    """Yield where a post-processor stores ids, as list and index."""
    for part in (processor or {}).get("processors", []):
        yield from _id_slots(part)
    for token in (processor or {}).get("special_tokens", {}).values():
        yield from ((token["ids"], i) for i in range(len(token["ids"])))
    if processor and processor["type"] in ("BertProcessing", "RobertaProcessing"):
        yield from ((processor[name], 1) for name in ("cls", "sep"))


def encode_untruncated(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text, without truncation and without special tokens."""
    untruncated = Tokenizer.from_str(tokenizer.to_str())
    untruncated.no_truncation()
    return [encoding.ids for encoding in untruncated.encode_batch_fast(list(texts), add_special_tokens=False)]


def normalized(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Apply the normalizer of `tokenizer` to each text."""
    return [text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text) for text in texts]

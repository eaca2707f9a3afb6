"""A vocabulary cut to the texts: pieces that no text uses leave the tokenizer and the embedding matrix.

What stays: the pieces of the texts, special and added tokens, and every single character of the scripts
seen, so that a new word still falls into known letters. Digits, punctuation, symbols and emoji stay too where
they belong to no script: there are few, and a comment not seen yet may well hold another emoji.

Why the pieces of the texts cannot move, model by model: a winner among all pieces is still the winner among
fewer, if nothing that scores candidates changes. That asks for more than the pieces themselves:

- Unigram charges an unknown character by the lowest score of the vocabulary, so the piece of that score stays.
- BPE reaches a piece through merges, so the pieces on the way stay, with their merges.
- WordPiece gives up on a word only after a greedy walk, so the pieces walked over in unknown words stay.

It is checked on every text all the same.
"""

import copy
import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from toolkit.classifier import Classifier
from toolkit.errors import InputError
from toolkit.tokenizer import encode

OPTION = "--trim-vocabulary"
MEND = f"leave {OPTION} out"
WORD_START = "▁"
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
PLACEHOLDER = re.compile(r"\W*(unused|madeupword)_?\d+\W*")
"""Pieces that were reserved and never trained: the last to fill up with."""


@dataclass(frozen=True)
class Trimming:
    """What trimming kept, and how well a vocabulary cut to half of the texts covers the other half."""

    pieces_before: int
    pieces_after: int
    half_pieces: int
    """Pieces of the vocabulary that was cut to the first half alone; the figures below are of that one."""
    unseen_texts: int
    """Distinct texts of the other half; none of them is in the first."""
    unseen_identical: float
    """Share of those whose pieces are the same as under the whole vocabulary."""
    unseen_longer: float
    """Pieces of those per piece under the whole vocabulary: 1.02 is two in a hundred more."""
    unseen_unknown: float
    """Share of the pieces of those that are the unknown piece."""
    unseen_unknown_before: float
    """The same share under the whole vocabulary."""


def trim_vocabulary(classifier: Classifier, texts: Sequence[str], size: int = 0) -> tuple[Classifier, Trimming]:
    """A copy of `classifier` with fewer pieces, and the same pieces and logits on every one of `texts`.

    size: pieces to keep in all, 0 for as few as the texts need. What is left of it goes to further pieces, those
    in scripts of the texts first, the commonest first: by score (Unigram) or by id (BPE, WordPiece). More than
    there are keeps them all.
    Raises: InputError if `size` is too small, the tokenizer or model cannot be cut, or a text changes its pieces.
    """
    embedding = _embedding(classifier.network)
    whole = _read_vocabulary(classifier, embedding)
    encoded = _encode_whole(whole.tokenizer, texts)
    plain = _normalised(whole.tokenizer, texts)
    first_row = {text: row for row, text in reversed(list(enumerate(plain)))}
    distinct = sorted(first_row.values())
    if len(distinct) < 2:
        raise InputError(f"{OPTION}: needs two different texts or more; {MEND}")

    tokenizer, kept = _cut_tokenizer(whole, _fill_up(whole, _needed(whole, plain, encoded), plain, size))
    _refuse_changed_pieces(encoded, _encode_whole(tokenizer, texts), kept)
    # And as they reach the network: the tokenizer in memory may differ from its own JSON in the last bit of a score.
    _refuse_changed_pieces(encode(classifier.tokenizer, texts), encode(tokenizer, texts), kept)
    new_id = {old: new for new, old in enumerate(kept)}
    network = _cut_network(classifier.network, embedding, new_id)
    cut = replace(classifier, network=network, tokenizer=tokenizer, pad_id=new_id[classifier.pad_id])
    return cut, _measure(whole, texts, plain, encoded, distinct, size, len(kept))


@dataclass(frozen=True, eq=False)
class _Vocabulary:
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


def _read_vocabulary(classifier: Classifier, embedding: nn.Embedding) -> _Vocabulary:
    spec = json.loads(classifier.tokenizer.to_str())
    model, ids = spec["model"], classifier.tokenizer.get_vocab()
    if model["type"] not in ("WordPiece", "BPE", "Unigram"):
        raise InputError(f"{OPTION}: a {model['type']} tokenizer cannot be cut; {MEND}")
    if max(ids.values()) >= embedding.num_embeddings:
        raise InputError(f"{OPTION}: the tokenizer has more pieces than the model has embeddings; {MEND}")
    unknown = model["unk_id"] if model["type"] == "Unigram" else ids.get(model["unk_token"])
    byte_level = any('"ByteLevel"' in json.dumps(spec[part]) for part in ("pre_tokenizer", "normalizer"))
    always = {token["id"] for token in spec["added_tokens"]} | {classifier.pad_id}
    always |= {slots[i] for slots, i in _id_slots(spec["post_processor"])}
    always |= set() if unknown is None else {unknown}
    always |= set(range(_position_offset(classifier.network, embedding) + 1))
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
    return _Vocabulary(classifier.tokenizer, spec, ids, pieces, ranks, unknown, frozenset(always), byte_level)


def _needed(whole: _Vocabulary, plain: Sequence[str], encoded: Sequence[Sequence[int]]) -> set[int]:
    """Ids without which a text would change its pieces or a letter of its scripts be unknown."""
    used = set(chain.from_iterable(encoded)) | whole.always | _alphabet(whole, set().union(*plain))
    if whole.model["type"] == "WordPiece":
        for text, ids in zip(plain, encoded, strict=True):
            if whole.unknown in ids:
                used |= _greedy_walk(whole, text)
    return used.union(*(_way_to(whole, i) for i in used))


def _fill_up(whole: _Vocabulary, needed: set[int], plain: Sequence[str], size: int) -> set[int]:
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


def _alphabet(whole: _Vocabulary, seen: set[str]) -> set[int]:
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


def _bare(whole: _Vocabulary, piece: str) -> str:
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


def _way_to(whole: _Vocabulary, i: int) -> set[int]:
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


def _greedy_walk(whole: _Vocabulary, text: str) -> set[int]:
    """WordPiece: ids tried in the words of a normalised text, those of words that end up unknown among them."""
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


def _cut_tokenizer(whole: _Vocabulary, keep: Collection[int]) -> tuple[Tokenizer, list[int]]:
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


def _encode_whole(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text at full length, without the special tokens of the template."""
    uncut = Tokenizer.from_str(tokenizer.to_str())
    uncut.no_truncation()
    return [encoding.ids for encoding in uncut.encode_batch_fast(list(texts), add_special_tokens=False)]


def _normalised(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    return [text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text) for text in texts]


def _refuse_changed_pieces(before: Sequence[list[int]], after: Sequence[list[int]], kept: Sequence[int]) -> None:
    """Old ids are compared, not strings: an unknown piece may carry the string of the piece that is gone."""
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != [kept[i] for i in new]:
            raise InputError(f"{OPTION}: text {row} (counted from 0) would change its pieces; {MEND}")


def _measure(
    whole: _Vocabulary,
    texts: Sequence[str],
    plain: Sequence[str],
    encoded: Sequence[Sequence[int]],
    distinct: Sequence[int],
    size: int,
    pieces_after: int,
) -> Trimming:
    """Cut to every second distinct text, count on those between: a text that is there twice is not unseen."""
    seen, unseen = distinct[::2], distinct[1::2]
    seen_plain = [plain[i] for i in seen]
    needed = _needed(whole, seen_plain, [encoded[i] for i in seen])
    tokenizer, kept = _cut_tokenizer(whole, _fill_up(whole, needed, seen_plain, size))
    before = [encoded[i] for i in unseen]
    after = [[kept[i] for i in ids] for ids in _encode_whole(tokenizer, [texts[i] for i in unseen])]
    pieces = [max(1, sum(map(len, side))) for side in (before, after)]
    unknown = [sum(ids.count(whole.unknown) for ids in side) for side in (before, after)]
    return Trimming(
        pieces_before=len(whole.ids),
        pieces_after=pieces_after,
        half_pieces=len(kept),
        unseen_texts=len(unseen),
        unseen_identical=sum(a == b for a, b in zip(after, before, strict=True)) / len(unseen),
        unseen_longer=pieces[1] / pieces[0],
        unseen_unknown=unknown[1] / pieces[1],
        unseen_unknown_before=unknown[0] / pieces[0],
    )


def _embedding(network: nn.Module) -> nn.Embedding:
    inner: Any = getattr(network, "encoder", None) or getattr(network, "model", None)
    try:
        embedding = inner.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embedding = None
    if not isinstance(embedding, nn.Embedding):
        raise InputError(f"{OPTION}: this model has no embedding matrix to cut; {MEND}")
    return embedding


def _position_offset(network: nn.Module, embedding: nn.Embedding) -> int:
    """The padding id if positions are counted from it, as in RoBERTa, else -1.

    There it must keep its number, and so must every id below, or each position would move with it.
    """
    others = (m for m in network.modules() if isinstance(m, nn.Embedding) and m is not embedding)
    return max((m.padding_idx for m in others if m.padding_idx is not None), default=-1)


def _cut_network(network: Any, embedding: nn.Embedding, new_id: dict[int, int]) -> Any:
    """A copy of `network` with the embedding rows of the ids in `new_id` alone, in that order."""
    old = embedding.weight  # (old ids, width)
    rows = nn.Parameter(old.detach()[list(new_id)].clone(), requires_grad=old.requires_grad)  # (new ids, width)
    cut = copy.deepcopy(network, {id(old): rows})  # so whatever shares the matrix shares the new one
    for module in cut.modules():
        if isinstance(module, nn.Embedding) and module.weight is rows:
            module.num_embeddings = len(new_id)
            module.padding_idx = None if module.padding_idx is None else new_id.get(module.padding_idx)
    for config in {id(m.config): m.config for m in cut.modules() if hasattr(m, "config")}.values():
        config.vocab_size = len(new_id)
        for name, value in list(vars(config).items()):
            if name.endswith("_token_id") and value is not None:
                many = [new_id[i] for i in value if i in new_id] if isinstance(value, list) else []
                setattr(config, name, many or (None if isinstance(value, list) else new_id.get(value)))
    return cut

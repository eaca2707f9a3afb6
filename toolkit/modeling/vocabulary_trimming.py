"""A vocabulary cut to the texts: pieces that no text uses leave the tokenizer and the embedding matrix.

What stays: the pieces of the texts, special and added tokens, and every single character of the scripts
seen, so that a new word still falls into known letters. Digits, punctuation, symbols and emoji stay too where
they belong to no script: there are few, and a comment not seen yet may well hold another emoji.

Why the pieces of the texts cannot move is told in `toolkit.pieces`. It is checked on every text all the same.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from toolkit.config.settings import ExportSettings
from toolkit.data.corpus import Corpus
from toolkit.data.unlabeled import read_unlabeled
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.tokenizer import encode
from toolkit.modeling.tokenizer_trimming import (
    MEND,
    OPTION,
    Vocabulary,
    cut_tokenizer,
    encode_whole,
    fill_up,
    needed_pieces,
    normalized,
    read_vocabulary,
)
from toolkit.utils.console import working
from toolkit.utils.errors import InputError


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
    whole = read_vocabulary(
        classifier.tokenizer,
        classifier.pad_id,
        embedding.num_embeddings,
        _position_offset(classifier.network, embedding),
    )
    encoded = encode_whole(whole.tokenizer, texts)
    plain = normalized(whole.tokenizer, texts)
    first_row = {text: row for row, text in reversed(list(enumerate(plain)))}
    distinct = sorted(first_row.values())
    if len(distinct) < 2:
        raise InputError(f"{OPTION}: needs two different texts or more; {MEND}")

    tokenizer, kept = cut_tokenizer(whole, fill_up(whole, needed_pieces(whole, plain, encoded), plain, size))
    _refuse_changed_pieces(encoded, encode_whole(tokenizer, texts), kept)
    # And as they reach the network: the tokenizer in memory may differ from its own JSON in the last bit of a score.
    _refuse_changed_pieces(encode(classifier.tokenizer, texts), encode(tokenizer, texts), kept)
    new_id = {old: new for new, old in enumerate(kept)}
    network = _cut_network(classifier.network, embedding, new_id)
    cut = replace(classifier, network=network, tokenizer=tokenizer, pad_id=new_id[classifier.pad_id])
    return cut, _measure(whole, texts, plain, encoded, distinct, size, len(kept))


def trimmed(
    classifier: Classifier, export: ExportSettings, corpus: Corpus, unlabelled: str | None
) -> tuple[Classifier, Trimming | None]:
    """`classifier` with the vocabulary of the corpus and of the unlabeled texts, if that is asked for."""
    if export.trim_vocabulary is None:
        return classifier, None
    further = [] if unlabelled is None else read_unlabeled(Path(unlabelled))
    with working("trimming the vocabulary"):
        return trim_vocabulary(classifier, [*corpus.texts, *further], export.trim_vocabulary)


def _refuse_changed_pieces(before: Sequence[list[int]], after: Sequence[list[int]], kept: Sequence[int]) -> None:
    """Old ids are compared, not strings: an unknown piece may carry the string of the piece that is gone."""
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != [kept[i] for i in new]:
            raise InputError(f"{OPTION}: text {row} (counted from 0) would change its pieces; {MEND}")


def _measure(
    whole: Vocabulary,
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
    needed = needed_pieces(whole, seen_plain, [encoded[i] for i in seen])
    tokenizer, kept = cut_tokenizer(whole, fill_up(whole, needed, seen_plain, size))
    before = [encoded[i] for i in unseen]
    after = [[kept[i] for i in ids] for ids in encode_whole(tokenizer, [texts[i] for i in unseen])]
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
    inner = getattr(network, "encoder", None) or getattr(network, "model", None)
    embedding = None if inner is None else inner.get_input_embeddings()
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

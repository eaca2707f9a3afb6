"""Trim a vocabulary to the texts: remove unused pieces from the tokenizer and the embedding matrix.

Kept are the pieces of the texts, special and added tokens, and all single characters of the scripts of the texts, so
that new words can still be split into known letters. Digits, punctuation, symbols and emoji that belong to no script
are kept, too: they are few, and future texts may contain them.

`toolkit.modeling.tokenizer_trimming` explains why the pieces of the texts do not change. This is also verified on
every text.
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
    FIX,
    OPTION,
    Vocabulary,
    encode_untruncated,
    fill_up,
    needed_pieces,
    normalized,
    read_vocabulary,
    trim_tokenizer,
)
from toolkit.utils.console import working
from toolkit.utils.errors import InputError


@dataclass(frozen=True)
class Trimming:
    """Vocabulary sizes, and how well a vocabulary trimmed to half of the texts covers the other half."""

    pieces_before: int
    pieces_after: int
    half_pieces: int
    """Pieces of a vocabulary trimmed to the first half only; the figures below are for this vocabulary."""
    unseen_texts: int
    """Distinct texts of the second half; none of them occurs in the first."""
    unseen_identical: float
    """Share of the unseen texts with the same pieces as under the full vocabulary."""
    unseen_longer: float
    """Pieces of the unseen texts divided by their pieces under the full vocabulary: 1.02 means 2 % more."""
    unseen_unknown: float
    """Share of unknown pieces among the pieces of the unseen texts."""
    unseen_unknown_before: float
    """The same share under the full vocabulary."""


def trim_vocabulary(classifier: Classifier, texts: Sequence[str], size: int = 0) -> tuple[Classifier, Trimming]:
    """Return a copy of `classifier` with fewer pieces, but the same pieces and logits for all `texts`.

    size: number of pieces to keep, or 0 for only those that the texts need. If it is larger than needed, other pieces
    are added: those in scripts of the texts first, then by frequency (score for Unigram, id for BPE and WordPiece).
    If it exceeds the vocabulary, all pieces are kept.
    Raises: InputError if `size` is too small, if the tokenizer or the model cannot be trimmed, or if the pieces of a
    text would change.
    """
    embedding = _embedding(classifier.network)
    vocabulary = read_vocabulary(
        classifier.tokenizer,
        classifier.pad_id,
        embedding.num_embeddings,
        _position_offset(classifier.network, embedding),
    )
    encoded = encode_untruncated(vocabulary.tokenizer, texts)
    plain = normalized(vocabulary.tokenizer, texts)
    first_row = {text: row for row, text in reversed(list(enumerate(plain)))}
    distinct = sorted(first_row.values())
    if len(distinct) < 2:
        raise InputError(f"{OPTION}: needs at least two different texts; {FIX}")

    needed = needed_pieces(vocabulary, plain, encoded)
    tokenizer, kept = trim_tokenizer(vocabulary, fill_up(vocabulary, needed, plain, size))
    _refuse_changed_pieces(encoded, encode_untruncated(tokenizer, texts), kept)
    # Also with the tokenizer in memory: the last bit of its scores may differ from those in its JSON.
    _refuse_changed_pieces(encode(classifier.tokenizer, texts), encode(tokenizer, texts), kept)
    new_id = {old: new for new, old in enumerate(kept)}
    network = _trim_embedding(classifier.network, embedding, new_id)
    result = replace(classifier, network=network, tokenizer=tokenizer, pad_id=new_id[classifier.pad_id])
    return result, _measure(vocabulary, texts, plain, encoded, distinct, size, len(kept))


def trimmed(
    classifier: Classifier, export: ExportSettings, corpus: Corpus, unlabelled: str | None
) -> tuple[Classifier, Trimming | None]:
    """Trim the vocabulary to the corpus and the unlabeled texts if `export` requests it."""
    if export.trim_vocabulary is None:
        return classifier, None
    unlabeled = [] if unlabelled is None else read_unlabeled(Path(unlabelled))
    with working("trimming the vocabulary"):
        return trim_vocabulary(classifier, [*corpus.texts, *unlabeled], export.trim_vocabulary)


def _refuse_changed_pieces(before: Sequence[list[int]], after: Sequence[list[int]], kept: Sequence[int]) -> None:
    """Raise InputError if the pieces of a text change.

    Compares ids, not strings: an unknown piece may have the string of a removed piece.
    """
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != [kept[i] for i in new]:
            raise InputError(f"{OPTION}: the pieces of text {row} (counted from 0) would change; {FIX}")


def _measure(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    plain: Sequence[str],
    encoded: Sequence[Sequence[int]],
    distinct: Sequence[int],
    size: int,
    pieces_after: int,
) -> Trimming:
    """Trim to every second distinct text and measure on the others. Duplicates do not count as unseen."""
    seen, unseen = distinct[::2], distinct[1::2]
    seen_plain = [plain[i] for i in seen]
    needed = needed_pieces(vocabulary, seen_plain, [encoded[i] for i in seen])
    tokenizer, kept = trim_tokenizer(vocabulary, fill_up(vocabulary, needed, seen_plain, size))
    before = [encoded[i] for i in unseen]
    after = [[kept[i] for i in ids] for ids in encode_untruncated(tokenizer, [texts[i] for i in unseen])]
    pieces = [max(1, sum(map(len, side))) for side in (before, after)]
    unknown = [sum(ids.count(vocabulary.unknown) for ids in side) for side in (before, after)]
    return Trimming(
        pieces_before=len(vocabulary.ids),
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
        raise InputError(f"{OPTION}: this model has no embedding matrix to trim; {FIX}")
    return embedding


def _position_offset(network: nn.Module, embedding: nn.Embedding) -> int:
    """Return the padding id if position ids start from it, as in RoBERTa, else -1.

    The padding id and all ids below it must then stay the same, or all positions would shift.
    """
    others = (m for m in network.modules() if isinstance(m, nn.Embedding) and m is not embedding)
    return max((m.padding_idx for m in others if m.padding_idx is not None), default=-1)


def _trim_embedding(network: Any, embedding: nn.Embedding, new_id: dict[int, int]) -> Any:
    """Return a copy of `network` with only the embedding rows of the old ids in `new_id`, in that order."""
    old = embedding.weight  # (old ids, width)
    rows = nn.Parameter(old.detach()[list(new_id)].clone(), requires_grad=old.requires_grad)  # (new ids, width)
    trimmed_network = copy.deepcopy(network, {id(old): rows})  # tied weights share the new matrix
    for module in trimmed_network.modules():
        if isinstance(module, nn.Embedding) and module.weight is rows:
            module.num_embeddings = len(new_id)
            module.padding_idx = None if module.padding_idx is None else new_id.get(module.padding_idx)
    for config in {id(m.config): m.config for m in trimmed_network.modules() if hasattr(m, "config")}.values():
        config.vocab_size = len(new_id)
        for name, value in list(vars(config).items()):
            if name.endswith("_token_id") and value is not None:
                ids = [new_id[i] for i in value if i in new_id] if isinstance(value, list) else []
                setattr(config, name, ids or (None if isinstance(value, list) else new_id.get(value)))
    return trimmed_network

"""`hbt explain`: what in a text decided. Exact for n-gram packages, by leaving out words for all others."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.loaders.base.texts import checked_texts
from exporters.registry import LoadedArtifact
from toolkit import package as packages
from toolkit.data.normalization import normalize
from toolkit.utils.errors import InputError
from toolkit.workflows.explaining.ngram_table import NgramTable, counted_ngrams, ngram_table

EXACT, OCCLUSION = "exact", "occlusion"
LEAST_TEXTS = 2
"""N-grams in fewer texts are not listed among those that weigh most."""


@dataclass(frozen=True)
class Part:
    """A part of a text and what it adds to the logit of each label."""

    text: str
    start: int
    end: int
    """Characters of the text, the end excluded."""
    contributions: tuple[float, ...]
    """(labels,)."""


@dataclass(frozen=True)
class Explanation:
    """What in a text decided.

    Exact: bias and contributions of all words sum to the logits, and so do bias and contributions of all characters.
    Occlusion: the contribution of a word is the logit with it minus the logit without it; they do not sum to anything.
    """

    text: str
    labels: tuple[str, ...]
    label: str
    """The predicted label."""
    probability: float
    shown: str
    """The label whose logit is explained."""
    method: str
    """exact or occlusion."""
    logits: tuple[float, ...]
    bias: tuple[float, ...] | None
    """Part of the logits that no text changes; None for occlusion."""
    words: tuple[Part, ...]
    characters: tuple[Part, ...]
    """Of an n-gram package; an n-gram counts in equal parts for its characters other than spaces."""
    ngrams: tuple[Part, ...]
    """Of an n-gram package: each n-gram once, at its first place, those that weigh most for `shown` first."""

    def of(self, part: Part) -> float:
        """Return what a part adds to the logit of the shown label."""
        return part.contributions[self.labels.index(self.shown)]

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation for a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class GlobalNgram:
    """An n-gram that weighs much for a label."""

    label: str
    ngram: str
    weight: float
    """What it would add to the logit in a text without other n-grams."""
    texts: int
    """Number of texts with it."""


def explain_texts(folder: Path, texts: list[str], label: str | None = None) -> list[Explanation]:
    """Return the explanation of each text. label: the one to explain; None takes the predicted one.

    Raises: InputError if `folder` is not a package or does not have the label.
    """
    model = packages.load(folder)
    if label is not None and label not in model.labels:
        raise InputError(f"--label {label}: not a label of {folder}; it has {', '.join(model.labels)}")
    table = ngram_table(folder)
    return [_explained(model, table, text, label) for text in checked_texts(texts)]


def _explained(model: LoadedArtifact, table: NgramTable | None, text: str, label: str | None) -> Explanation:
    ((predicted, probability),) = packages.predict(model, [text])
    shown = label or predicted
    logits = tuple(float(value) for value in model.predict_logits([text])[0])
    given = (text, tuple(model.labels), predicted, float(probability), shown)
    if table is None:
        return Explanation(*given, OCCLUSION, logits, None, _left_out(model, text, logits), (), ())
    tokens = table.tokens(text)
    windows = list(table.windows(tokens))
    added = table.contributions(windows)  # (windows, labels)
    of_token = np.zeros((len(tokens), len(model.labels)))
    total: dict[str, np.ndarray] = {}
    places: dict[str, tuple[int, int]] = {}
    for window, value in zip(windows, added, strict=True):
        inside = [i for i in range(window.first, window.last + 1) if tokens[i].char != " "]
        for i in inside or [window.first]:  # a text without characters is one n-gram of two spaces
            of_token[i] += value / max(1, len(inside))
        ngram = "".join(each.char for each in tokens[window.first : window.last + 1])
        total[ngram] = total.get(ngram, 0.0) + value
        if inside:
            places.setdefault(ngram, (tokens[inside[0]].start, tokens[inside[-1]].end))
    characters = [
        Part(text[token.start : token.end], token.start, token.end, tuple(of_token[i].tolist()))
        for i, token in enumerate(tokens)
        if token.char != " "
    ]
    chosen = model.labels.index(shown)
    ngrams = sorted(places, key=lambda each: -abs(total[each][chosen]))
    return Explanation(
        *given,
        method=EXACT,
        logits=logits,
        bias=tuple(float(value) for value in table.bias),
        words=_joined(text, [(token.char, part) for token, part in _with_spaces(tokens, characters)]),
        characters=tuple(characters),
        ngrams=tuple(Part(each, *places[each], tuple(total[each].tolist())) for each in ngrams),
    )


def _with_spaces(tokens: list[Any], characters: list[Part]) -> list[tuple[Any, Part | None]]:
    """Return each token with its part; None for spaces."""
    rest = iter(characters)
    return [(token, None if token.char == " " else next(rest)) for token in tokens]


def _joined(text: str, found: list[tuple[str, Part | None]]) -> tuple[Part, ...]:
    """Return the words: the parts between two spaces as one, with the sum of their contributions."""
    words, word = [], list[Part]()
    for _, part in [*found, (" ", None)]:
        if part is not None:
            word.append(part)
        elif word:
            start, end = min(each.start for each in word), max(each.end for each in word)
            sums = np.sum([each.contributions for each in word], axis=0)
            words.append(Part(text[start:end], start, end, tuple(sums.tolist())))
            word = []
    return tuple(words)


def _left_out(model: LoadedArtifact, text: str, logits: tuple[float, ...]) -> tuple[Part, ...]:
    """Return each word with the logits minus the logits of the text without it."""
    found = list(re.finditer(r"\S+", text))
    without = [text[: word.start()] + text[word.end() :] for word in found]
    changed = model.predict_logits(without) if without else np.zeros((0, len(logits)))
    return tuple(
        Part(
            word.group(), word.start(), word.end(), tuple(float(a) - float(b) for a, b in zip(logits, row, strict=True))
        )
        for word, row in zip(found, changed, strict=True)
    )


def heaviest_ngrams(folder: Path, texts: list[str], top: int) -> list[GlobalNgram]:
    """Return the `top` n-grams of `texts` that weigh most for each label, in at least LEAST_TEXTS of them.

    Raises: InputError if `folder` is not an n-gram package.
    """
    model = packages.load(folder)
    table = ngram_table(folder)
    if table is None:
        raise InputError(f"--global: {folder} is not an n-gram package, and only these have weights; explain a text")
    counts, rows = counted_ngrams(table, [text for text in texts if normalize(text)])
    names = [name for name, count in counts.items() if count >= LEAST_TEXTS and name.strip()]
    weights = table.weights([rows[name] for name in names])  # (n-grams, labels)
    weights = weights - weights.mean(axis=1, keepdims=True)  # what all labels have decides nothing
    found = []
    for i, label in enumerate(model.labels):
        order = np.argsort(-weights[:, i], kind="stable")[:top]
        found += [GlobalNgram(label, names[j], float(weights[j, i]), counts[names[j]]) for j in order]
    return found

"""fastText (Joulin et al. 2017): supervised, with words, word pairs and character n-grams; and quantized."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Given, Label, Rows, best_of, score

MARK = "__label__"
SHAPES = [{"wordNgrams": words, "minn": low, "maxn": high} for words in (1, 2) for low, high in ((0, 0), (2, 5))]
RATES = [{"lr": lr, "epoch": epoch} for lr in (0.1, 0.5, 1.0) for epoch in (10, 50, 200)]


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Train with the settings that are best on validation rows, first shape, then rate; write both forms."""
    import fasttext

    file = folder / "train.txt"
    lines = [f"{MARK}{rows.names.index(y)} {_line(x)}" for x, y in zip(rows.texts, rows.labels, strict=True)]
    file.write_text("\n".join(lines) + "\n", "utf-8")

    def fit(settings: dict[str, Any]) -> Any:
        try:
            return fasttext.train_supervised(str(file), verbose=0, thread=1, seed=0, **settings)
        except RuntimeError:  # "Encountered NaN": the learning rate is too high
            return None

    label = partial(_labels, rows.names)
    _, shape, _ = best_of(rows, [{"lr": 0.5, "epoch": 50} | each for each in SHAPES], fit, label)
    model, settings, best = best_of(rows, [shape | each for each in RATES], fit, label)
    model.save_model(str(folder / "model.bin"))
    with suppress(ValueError):  # too few words to quantize: it stays as it is
        model.quantize(str(file), retrain=True, qnorm=True, cutoff=100_000, verbose=0, thread=1)
    model.save_model(str(folder / "model.ftz"))
    file.unlink()
    return {"settings": settings, "validation": {"fasttext": best, "fasttext-quantized": score(rows, label(model))}}


def load(folder: Path, names: Sequence[str], variant: str) -> Label:
    """Return the function that labels texts. variant: fasttext or fasttext-quantized."""
    import fasttext

    return _labels(names, fasttext.load_model(str(folder / ("model.ftz" if "quantized" in variant else "model.bin"))))


def _labels(names: Sequence[str], model: Any) -> Label:
    if model is None:
        return lambda texts: [names[0]] * len(texts)

    # `predict` of the Python package fails with numpy 2 in some releases; this is what it calls.
    def label(texts: Sequence[str]) -> list[str]:
        return [names[int(model.f.predict(_line(text), 1, 0.0, "strict")[0][1].removeprefix(MARK))] for text in texts]

    return label


def _line(text: str) -> str:
    return " ".join(text.lower().split()) + "\n"

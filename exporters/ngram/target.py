"""What the targets without a runtime have in common: model.bin, the sources of a program that reads it, and a predictor
that runs this program.

A package may come from a stranger, so hbt never compiles or runs a source that lies in it. It runs its own copy with
the package's model.bin, which is only data, and refuses a package whose sources differ from its own.
"""

import math
import stat
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exporters.loaders.base.texts import checked_texts
from exporters.loaders.compose import Loader, loader_source
from exporters.loaders.model_bin.model import Model, refuse_other_rule
from exporters.registry import Candidate, Evidence, LoadedArtifact
from toolkit.utils.errors import InputError

if TYPE_CHECKING:
    from toolkit.config.settings import ExportSettings
    from toolkit.modeling.classifier import Classifier

SOURCES = Path(__file__).parent / "sources"
MODEL_FILE = "model.bin"


@dataclass(frozen=True)
class Answer:
    """What a program answers to one text."""

    label: int
    logits: Sequence[float]
    probabilities: Sequence[float]


Classify = Callable[[Sequence[str]], list[Answer]]


@dataclass(frozen=True, eq=False)
class Program:
    """See `exporters.registry.LoadedArtifact`. Every text is scored by itself, so a batch size changes nothing."""

    labels: tuple[str, ...]
    threshold: float | None
    offsets: tuple[float, ...] | None
    encode: Callable[[Sequence[str]], Sequence["array[int]"]]
    """Texts -> the token ids of each."""
    classify: Classify

    def predict(self, texts: Sequence[str], batch_size: int = 1) -> list[tuple[str, float]]:
        """Return the label of each text and its probability."""
        answers = self.answers(texts, batch_size)
        return [(self.labels[each.label], float(each.probabilities[each.label])) for each in answers]

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Return probabilities, float32 (texts, labels)."""
        return self._array([each.probabilities for each in self.answers(texts, batch_size)])

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Return logits, float32 (texts, labels)."""
        return self._array([each.logits for each in self.answers(texts, batch_size)])

    def answers(self, texts: Sequence[str], batch_size: int) -> list[Answer]:
        """Return the answer to each text.

        Raises: ValueError for one text instead of a list, a batch size below 1, or scores that are not finite.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        answers = self.classify(checked_texts(texts))
        if not all(math.isfinite(logit) for each in answers for logit in each.logits):
            raise ValueError("the program returned scores that are not finite: the model is damaged")
        return answers

    def _array(self, rows: list[Sequence[float]]) -> np.ndarray:
        return np.array(rows, dtype=np.float32).reshape(len(rows), len(self.labels))


@dataclass(frozen=True)
class ProgramTarget:
    """See `exporters.registry.Exporter`."""

    name: str
    summary: str
    promise: Literal["faster", "smaller", "same"]
    start: Callable[[Path], Classify]
    """Start hbt's own program with a model.bin."""
    available: Callable[[], str | None]
    sources: tuple[str, ...] = ()
    """Files of SOURCES that are part of the package."""
    reference: str | None = "onnx-fp32"
    file: str = MODEL_FILE
    distributions: tuple[str, ...] = ()
    kind: Loader = "program"
    """The loader that is how_to_load.py."""
    code_bytes: int | None = None
    """About the bytes of the compiled program; None if it is not compiled."""

    @property
    def program_bytes(self) -> int:
        """Bytes that are flashed or downloaded beside model.bin: compiled program, its source, or how_to_load.py."""
        if self.code_bytes is not None:
            return self.code_bytes
        return sum((SOURCES / name).stat().st_size for name in self.sources) or len(loader_source(self.kind).encode())

    def candidates(
        self, classifier: "Classifier", evidence: Evidence, settings: "ExportSettings", reference: Path
    ) -> list[Candidate]:
        from exporters.ngram.tables import write_model
        from toolkit.modeling.ngram import NgramNetwork

        network = classifier.network
        if not isinstance(network, NgramNetwork):
            raise InputError(f"--target {self.name}: needs an n-gram student; give --student ngram")

        def write(folder: Path, in_float: frozenset[str]) -> dict[str, Any]:
            write_model(network, classifier.tokenizer, classifier.labels, evidence.rule, folder / MODEL_FILE)
            for source in self.sources:
                (folder / source).write_bytes((SOURCES / source).read_bytes())
            return {}

        return [Candidate("table in eight bits", write)]

    def loader(self, folder: Path) -> str:
        return loader_source(self.kind)

    def needs(self, folder: Path) -> tuple[str, ...]:
        return self.distributions

    def load(self, folder: Path, threads: int | None = None) -> LoadedArtifact:
        for source in self.sources:
            if not has_own_sources(folder, (source,)):
                raise ValueError(f"{source} differs from that of this hbt and is not run; make the package again")
        model = Model((folder / MODEL_FILE).read_bytes())
        refuse_other_rule(model, folder)
        return Program(model.labels, model.threshold, model.offsets, model.encode, self.start(folder / MODEL_FILE))


def has_own_sources(folder: Path, names: Sequence[str]) -> bool:
    """Return whether these files of a package are there and are those of this hbt."""
    return all(has_content(folder / name, (SOURCES / name).read_bytes()) for name in names)


def has_content(file: Path, expected: bytes) -> bool:
    """Return whether a file of a package is there, is regular and has this content."""
    if not file.exists():
        return False
    status = file.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == len(expected) and file.read_bytes() == expected

"""What runs on the workers of a cluster, where hbt is not installed.

This module imports nothing of hbt, and its functions are sent by value. The package itself does the work: its own
how_to_load.py checks its files and loads it.
"""

import hashlib
import importlib.util
import io
import os
import re
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any


class Labeler:
    """Adds columns to Arrow tables or record batches with the package in a folder."""

    def __init__(self, folder: str, how: dict[str, Any]) -> None:
        """how: text column, batch size, names of the added columns, and the pattern of a text without a label.

        Also `below`, the probability below which a column for the answer has `unsure`, and `scope`, which says why a
        text is out of scope; each is None if there is no such column.
        """
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self.how = how
        self.blank = re.compile(how["blank"])
        self.model = load(folder)

    def columns(self, batch: Any) -> tuple[list[str | None], list[float | None], list[str | None]]:
        """Return label and probability of each row, None without a text, and why it is out of scope, if it is."""
        texts = [text or "" for text in batch.column(self.how["text_column"]).to_pylist()]
        filled = [row for row, text in enumerate(texts) if not self.blank.fullmatch(text)]
        labels: list[str | None] = [None] * len(texts)
        probabilities: list[float | None] = [None] * len(texts)
        reasons: list[str | None] = [None] * len(texts)
        scored = [texts[row] for row in filled]
        found = self.model.predict(scored, self.how["batch_size"]) if filled else []
        for row, (label, probability) in zip(filled, found, strict=True):
            labels[row], probabilities[row] = label, round(probability, 6)
        scope = self.how.get("scope")
        if filled and scope is not None:
            for row, reason in zip(filled, scope.reasons(scored), strict=True):
                reasons[row] = reason or None
        return labels, probabilities, reasons

    def __call__(self, batch: Any) -> Any:
        """Return the batch with its added columns."""
        import pyarrow

        labels, probabilities, reasons = self.columns(batch)
        arrays = [pyarrow.array(labels, pyarrow.string()), pyarrow.array(probabilities, pyarrow.float64())]
        if self.how.get("below") is not None:
            pairs = zip(labels, probabilities, strict=True)
            answers = [self.how["unsure"] if p is not None and p < self.how["below"] else label for label, p in pairs]
            arrays.append(pyarrow.array(answers, pyarrow.string()))
        if self.how.get("scope") is not None:
            arrays.append(pyarrow.array(reasons, pyarrow.string()))
        names = [*batch.schema.names, *self.how["added"]]
        return type(batch).from_arrays([*batch.columns, *arrays], names=names)


class UnpackedLabeler(Labeler):
    """The same of a package that comes as a tar archive."""

    def __init__(self, archive: Any, how: dict[str, Any]) -> None:
        """archive: a reference of Ray to the bytes."""
        import ray

        content = ray.get(archive[0])
        folder = Path(tempfile.gettempdir()) / f"hbt-package-{os.getpid()}-{hashlib.sha256(content).hexdigest()[:16]}"
        if not folder.exists():
            with tarfile.open(fileobj=io.BytesIO(content)) as packed:
                packed.extractall(folder, filter="data")
        super().__init__(str(folder), how)


def load(folder: str) -> Any:
    """Return the model that the how_to_load.py of a package loads."""
    name = f"how_to_load_{hashlib.sha256(folder.encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(folder, "how_to_load.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.dont_write_bytecode = True  # the folder stays as manifest.json states it
        spec.loader.exec_module(module)
    return sys.modules[name].load(folder, threads=1)


def partition_labeler(folder_name: str, how: dict[str, Any]) -> Any:
    """Return a function for Spark's mapInArrow: the batches of a partition in, the same with labels out."""

    def label(batches: Any) -> Any:
        from pyspark import SparkFiles

        labeler = Labeler(SparkFiles.get(folder_name), how)
        for batch in batches:
            yield labeler(batch)

    return label

"""What a package says of its answers besides label and probability: `unsure`, and why a text is out of scope."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporters.loaders.command.label_file import added_columns
from exporters.loaders.command.model import UNSURE
from toolkit.evaluation.reliability.scope import COLUMN, SCOPE_FILE, Scope
from toolkit.package import answer_below, read_manifest
from toolkit.utils.errors import InputError


@dataclass(frozen=True)
class Flags:
    """How the answers of a package are flagged; by default not at all."""

    below: float | None = None
    """The answer is `unsure` if the probability of the label is below this; None always answers."""
    scope: Scope | None = None
    """None for a package of an earlier version."""

    @property
    def columns(self) -> list[str]:
        """The columns that a labeled file gets."""
        return added_columns(self.below) + ([] if self.scope is None else [COLUMN])

    def answer(self, label: str, probability: float) -> str:
        """Return the label, or `unsure`."""
        return label if self.below is None or probability >= self.below else UNSURE

    def reasons(self, texts: Sequence[str]) -> list[str]:
        """Return why each text is out of scope; "" for a text in scope."""
        return [""] * len(texts) if self.scope is None or not texts else self.scope.reasons(texts)


def flags_of(folder: Path) -> Flags:
    """Return the flags of a package whose files were checked. Raises: InputError if they are malformed."""
    below = answer_below(folder)
    if SCOPE_FILE not in read_manifest(folder)["files"]:  # another file of this name is none of the package
        return Flags(below)
    try:
        return Flags(below, Scope(json.loads((folder / SCOPE_FILE).read_text("utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder}: {error}; make the package again with hbt compress") from None

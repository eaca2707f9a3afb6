"""Settings of `hbt serve`: the limits are per worker, and every one of them has an answer of its own."""

from dataclasses import dataclass
from pathlib import Path

from toolkit.utils.errors import InputError, require


@dataclass(frozen=True)
class Limits:
    """What a request may ask for. Beyond it, the answer is 4xx or 503 with the reason as JSON."""

    max_body: int = 2**20
    """Bytes of a request body; a larger one is answered with 413."""
    max_texts: int = 256
    """Texts in a request; more is 413."""
    max_characters: int = 20_000
    """Characters in a text; a longer one is 413."""
    max_requests: int = 64
    """Requests that a worker scores or has waiting for it; one more is 503."""
    max_client_requests: int = 0
    """Requests of one client address at a time; one more is 429. 0 sets no limit."""
    body_seconds: float = 10.0
    """Seconds in which the body of a request must be here (408), and the head of the first one of a connection."""
    stop_seconds: int = 30
    """Seconds that requests have to be answered after the service was told to stop."""
    reload_seconds: float = 2.0
    """Seconds between looks for a new package in a folder that is served. 0 never looks."""

    def __post_init__(self) -> None:
        for name in ("max_body", "max_texts", "max_characters", "max_requests", "stop_seconds"):
            require(getattr(self, name) >= 1, _option(name), "must be 1 or more")
        for name in ("max_client_requests", "reload_seconds"):
            require(0 <= getattr(self, name) < float("inf"), _option(name), "must be a number that is not negative")
        require(0 < self.body_seconds < float("inf"), "--body-seconds", "must be more than 0")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class ServeSettings:
    """What is served."""

    packages: tuple[tuple[str, Path], ...]
    """Name and folder of each; the first answers where no package is named."""
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Attribute of Perspective to the labels of the first package whose probabilities it sums."""
    limits: Limits = Limits()


def named_packages(given: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    """Return name and folder of each package, which are given as FOLDER or NAME=FOLDER.

    Raises: InputError if two have the same name, or a name is empty or contains a slash.
    """
    found: dict[str, Path] = {}
    for each in given:
        name, equals, folder = each.partition("=")
        path = Path(folder if equals else each)
        name = name if equals else path.resolve().name
        if not name or "/" in name:
            raise InputError(f"{each}: give a package as FOLDER, or as NAME=FOLDER with a name without a slash")
        if name in found:
            raise InputError(f"{each}: another package is named {name!r}; give one of them as NAME=FOLDER")
        found[name] = path
    return tuple(found.items())


def attributes_of(given: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the labels of each attribute, which are given as ATTRIBUTE=LABEL or ATTRIBUTE=LABEL+LABEL."""
    found: dict[str, tuple[str, ...]] = {}
    for each in given:
        attribute, _, labels = each.partition("=")
        if not attribute or not labels:
            raise InputError(f"--attribute {each}: give ATTRIBUTE=LABEL, such as TOXICITY=hate, or LABEL+LABEL")
        found[attribute] = tuple(labels.split("+"))
    return tuple(found.items())

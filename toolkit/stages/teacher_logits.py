"""Teacher logits, computed once and cached under a hash of the network and the texts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from toolkit.modeling.classifier import Classifier
from toolkit.training.trainer import has_bf16
from toolkit.utils import console
from toolkit.utils.files import whole_file

PART = 100_000
"""Texts of one file of the cache."""
NO_FOLD = -1
"""Fold of a text that was not derived from a training row."""


def blend(logits: np.ndarray, linear: np.ndarray, share: float) -> np.ndarray:
    """Return (1 - share) · logits + share · linear, the logits of network and linear baseline, both (rows, labels)."""
    return (1 - share) * logits + share * linear


def cached_logits(
    classifier: Classifier, texts: Sequence[str], cache: Path, what: str, exact: bool = True
) -> np.ndarray:
    """Return logits (texts, labels) of `classifier`, from the cache if they were computed before.

    More than PART texts are computed and cached in parts, so that an interrupted command resumes with the next part.

    what: name of the classifier in messages.
    exact: compute in float32; if False, in bfloat16 on a processor that supports it, which is faster and accurate
    enough for distillation.
    """
    half = not exact and has_bf16("cpu")
    network = _network_key(classifier, half)
    parts = [texts[start : start + PART] for start in range(0, len(texts), PART)] or [texts]
    files = [cache / f"logits-{_key(network, part)}.safetensors" for part in parts]
    logits = np.empty((len(texts), len(classifier.labels)), dtype=np.float32)
    missing = []
    for number, (part, file) in enumerate(zip(parts, files, strict=True)):
        known = _read(file, (len(part), len(classifier.labels)))
        if known is None:
            missing.append(number)
        else:
            logits[number * PART : number * PART + len(part)] = known
    if len(missing) < len(parts):
        several = f"; {len(parts) - len(missing)} of {len(parts)} parts" if len(parts) > 1 else ""
        console.say(f"{what}: logits loaded from {files[0].parent if len(parts) > 1 else files[0]}{several}")
    if not missing:
        return logits
    cache.mkdir(parents=True, exist_ok=True)
    with (
        console.bar(what, sum(len(parts[number]) for number in missing)) as advance,
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        for number in missing:
            found = classifier.predict_logits(parts[number], advance=advance)
            logits[number * PART : number * PART + len(found)] = found
            with whole_file(files[number]) as partial:
                save_file({"logits": found}, partial)
    return logits


def _read(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Return cached logits; None if there are none, or if the file is damaged."""
    try:
        logits = load_file(file)["logits"]
    except (FileNotFoundError, SafetensorError, LookupError):
        return None
    return logits if logits.shape == shape and bool(np.isfinite(logits).all()) else None


def _network_key(classifier: Classifier, half: bool) -> "hashlib._Hash":
    """Return the hash of the network and its tokenizer, to which texts are added."""
    network = classifier.network
    # Pooling and head count change the logits without changing any tensor, so the configuration is hashed too. Its
    # private entries hold the path, which must not count.
    config = {name: value for name, value in network.config.to_diff_dict().items() if not name.startswith("_")}
    digest = hashlib.sha256(f"{half} {config} {getattr(network, 'pooling', '')}".encode())
    digest.update(classifier.tokenizer.to_str().encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest


def _key(network: "hashlib._Hash", texts: Sequence[str]) -> str:
    digest = network.copy()
    for text in texts:
        digest.update(text.encode() + b"\x00")
    return digest.hexdigest()[:16]

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

NO_FOLD = -1
"""Fold of a text that was not derived from a training row."""


def blend(logits: np.ndarray, linear: np.ndarray, share: float) -> np.ndarray:
    """Return (1 - share) · logits + share · linear, the logits of network and linear baseline, both (rows, labels)."""
    return (1 - share) * logits + share * linear


def cached_logits(
    classifier: Classifier, texts: Sequence[str], cache: Path, what: str, exact: bool = True
) -> np.ndarray:
    """Return logits (texts, labels) of `classifier`, from the cache if they were computed before.

    what: name of the classifier in messages.
    exact: compute in float32; if False, in bfloat16 on a processor that supports it, which is faster and accurate
    enough for distillation.
    """
    half = not exact and has_bf16("cpu")
    file = cache / f"logits-{_key(classifier, texts, half)}.safetensors"
    known = _read(file, (len(texts), len(classifier.labels)))
    if known is not None:
        console.say(f"{what}: logits loaded from {file}")
        return known
    with console.bar(what, len(texts)) as advance, torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = classifier.predict_logits(texts, advance=advance)
    cache.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial:
        save_file({"logits": logits}, partial)
    return logits


def _read(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Return cached logits; None if there are none, or if the file is damaged."""
    try:
        logits = load_file(file)["logits"]
    except (FileNotFoundError, SafetensorError, LookupError):
        return None
    return logits if logits.shape == shape and bool(np.isfinite(logits).all()) else None


def _key(classifier: Classifier, texts: Sequence[str], half: bool) -> str:
    network = classifier.network
    # Pooling and head count change the logits without changing any tensor, so the configuration is hashed too. Its
    # private entries hold the path, which must not count.
    config = {name: value for name, value in network.config.to_diff_dict().items() if not name.startswith("_")}
    digest = hashlib.sha256(f"{half} {config} {getattr(network, 'pooling', '')}".encode())
    digest.update(classifier.tokenizer.to_str().encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    for text in texts:
        digest.update(text.encode() + b"\x00")
    return digest.hexdigest()[:16]

"""Logits of a teacher, computed once and cached under the hash of network and texts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from toolkit.modeling.classifier import Classifier
from toolkit.training.trainer import has_bf16
from toolkit.utils import console

NO_FOLD = -1
"""The fold of a text that comes from no training row."""


def blend(logits: np.ndarray, linear: np.ndarray, share: float) -> np.ndarray:
    """`share` of the linear baseline's logits, the rest the network's; both (rows, labels)."""
    return (1 - share) * logits + share * linear


def cached_logits(
    classifier: Classifier, texts: Sequence[str], cache: Path, what: str, exact: bool = True
) -> np.ndarray:
    """Logits (texts, labels) of `classifier`, computed once and kept under a key of its weights and the texts.

    exact: in single precision; else in bfloat16 where the processor has it, which is enough to learn from and faster.
    """
    half = not exact and has_bf16("cpu")
    file = cache / f"logits-{_key(classifier, texts, half)}.safetensors"
    if file.is_file():
        console.say(f"{what}: logits taken from {file}")
        return load_file(file)["logits"]
    with console.bar(what, len(texts)) as advance, torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = classifier.predict_logits(texts, advance=advance)
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".partial")
    save_file({"logits": logits}, unfinished)
    unfinished.rename(file)
    return logits


def _key(classifier: Classifier, texts: Sequence[str], half: bool) -> str:
    network = classifier.network
    # The same tensors are another network under another pooling or number of heads, and the same under another path.
    config = {name: value for name, value in network.config.to_diff_dict().items() if not name.startswith("_")}
    digest = hashlib.sha256(f"{half} {config} {getattr(network, 'pooling', '')}".encode())
    digest.update(classifier.tokenizer.to_str().encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    for text in texts:
        digest.update(text.encode() + b"\x00")
    return digest.hexdigest()[:16]

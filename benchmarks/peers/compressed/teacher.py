"""The teacher that every transformer peer starts from, in parts that each library knows.

    encoder/    a plain encoder in the form of Hugging Face, with tokenizer.json
    head.json   pooling, the weights of the linear head, the decision rule, macro-F1 on validation rows

Libraries export the encoder, since a classifier with mean pooling is no architecture of transformers. Pooling and head
are then computed in numpy, which takes some ten microseconds.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers.common import Given, Label, Missing, Rows, score
from toolkit.evaluation.decision_rule import rule_from

if TYPE_CHECKING:
    from torch import nn

    from toolkit.modeling.classifier import Classifier

ENCODER, HEAD_FILE = "encoder", "head.json"


@dataclass(frozen=True)
class Head:
    """What turns the hidden states of the encoder into a label."""

    pooling: str
    weight: np.ndarray
    """float32 (labels, width)."""
    bias: np.ndarray
    """float32 (labels,)."""
    offsets: np.ndarray
    """float32 (labels,): the decision rule as something that is added to the logits before the highest wins."""
    validation_macro_f1: float
    """Of the teacher in single precision, with this rule."""

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Return logits (labels,) from the hidden states (tokens, width) of one text without padding."""
        pooled = hidden[0] if self.pooling == "cls" else hidden.mean(0) if self.pooling == "mean" else hidden.max(0)
        return self.weight @ pooled + self.bias


def write_parts(checkpoint: Path, folder: Path, rows: Rows) -> None:
    """Write the parts of a checkpoint of this toolkit into `folder`, a new one, unless it is there.

    Raises: Missing if the network is not an unpruned encoder with pooling and a linear head.
    """
    from toolkit.evaluation.predictor import rule_of
    from toolkit.modeling.classifier import PooledClassifier, load_classifier
    from toolkit.modeling.surgery import is_cut
    from toolkit.utils.files import whole_folder

    if folder.exists():
        return
    classifier = load_classifier(checkpoint)
    network = classifier.network
    if not isinstance(network, PooledClassifier) or is_cut(network):
        raise Missing(f"{checkpoint}: is not an unpruned encoder with a linear head")
    predicted = rule_of(classifier).predict(classifier.predict_proba(rows.validation_texts))
    with whole_folder(folder) as partial:
        write_head(classifier, partial, score(rows, lambda _: [rows.names[i] for i in predicted]))
        network.encoder.save_pretrained(partial / ENCODER)


def write_head(classifier: "Classifier", folder: Path, validation_macro_f1: float) -> None:
    """Write everything but the encoder: pooling, head, decision rule and tokenizer."""
    from toolkit.evaluation.predictor import rule_of
    from toolkit.modeling.tokenizer import TOKENIZER_FILE, save_tokenizer, save_tokenizer_config

    network: Any = classifier.network
    head = {
        "pooling": network.pooling,
        "weight": network.head.weight.tolist(),
        "bias": network.head.bias.tolist(),
        "validation_macro_f1": validation_macro_f1,
    }
    (folder / ENCODER).mkdir(parents=True)
    save_tokenizer(classifier.tokenizer, classifier.pad_id, folder / ENCODER / TOKENIZER_FILE)
    save_tokenizer_config(classifier.tokenizer, classifier.pad_id, folder / ENCODER / "tokenizer_config.json")
    (folder / HEAD_FILE).write_text(json.dumps(head | rule_of(classifier).as_dict()), "utf-8")


def teacher_of(given: Given) -> Path:
    """Return the folder of the parts. Raises: Missing if there is no teacher."""
    if given.teacher is None:
        raise Missing("needs a teacher: a package of a run with one, or --teacher")
    return given.teacher


def read_head(folder: Path) -> Head:
    """Return the head in a folder of parts."""
    found = json.loads((folder / HEAD_FILE).read_text("utf-8"))
    bias = np.array(found["bias"], dtype=np.float32)
    offsets = np.array(rule_from(found).logit_offsets(len(bias)), dtype=np.float32)
    weight = np.array(found["weight"], dtype=np.float32)
    return Head(found["pooling"], weight, bias, offsets, found["validation_macro_f1"])


def copy_parts(source: Path, folder: Path, encoder: bool) -> None:
    """Copy the head and the tokenizer of a folder of parts, and with `encoder` also its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / HEAD_FILE, folder / HEAD_FILE)
    leave = None if encoder else shutil.ignore_patterns("*.safetensors")
    shutil.copytree(source / ENCODER, folder / ENCODER, ignore=leave)


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a folder of parts, which truncates and does not pad."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / ENCODER / "tokenizer.json"))
    tokenizer.no_padding()
    return tokenizer


def encoder_of(folder: Path) -> Any:
    """Return the encoder of a folder of parts in torch, without a pooler of its own, ready to predict."""
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(folder / ENCODER, trust_remote_code=False)
    encoder.pooler = None
    return encoder.eval()


def network_of(folder: Path) -> "nn.Module":
    """Return the whole classifier in torch: input_ids, attention_mask, int64 (batch, tokens) -> logits."""
    import torch
    from torch import nn

    head = read_head(folder)

    class Network(nn.Module):
        """As a user would write it."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder_of(folder)
            self.classifier = nn.Linear(head.weight.shape[1], head.weight.shape[0])
            with torch.no_grad():
                self.classifier.weight.copy_(torch.from_numpy(head.weight))
                self.classifier.bias.copy_(torch.from_numpy(head.bias))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            if head.pooling == "cls":
                return self.classifier(hidden[:, 0])
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
            if head.pooling == "mean":
                return self.classifier((hidden * mask).sum(1) / mask.sum(1))
            return self.classifier((hidden - (1 - mask) * 1e4).max(1).values)

    return Network().eval()


def labels_from(names: Sequence[str], head: Head, logits_of: Callable[[str], np.ndarray]) -> Label:
    """Return the function that labels texts one after the other, so that no text is padded.

    logits_of: text -> logits (labels,).
    """
    return lambda texts: [names[int((logits_of(text) + head.offsets).argmax())] for text in texts]


def torch_labels(names: Sequence[str], folder: Path, network: Any, length: int | None = None) -> Label:
    """Return the function that labels texts with a network in torch.

    length: tokens that every text is padded to, but not more than the network reads.
    """
    import torch

    head, tokenizer = read_head(folder), read_tokenizer(folder)
    if length is not None:
        stored = json.loads((folder / ENCODER / "tokenizer.json").read_text("utf-8"))
        padding, longest = stored["padding"], stored["truncation"]["max_length"]
        tokenizer.enable_padding(length=min(length, longest), pad_id=padding["pad_id"], pad_token=padding["pad_token"])

    def logits_of(text: str) -> np.ndarray:
        encoded = tokenizer.encode(text)
        ids, mask = torch.tensor([encoded.ids]), torch.tensor([encoded.attention_mask])  # (1, tokens)
        with torch.inference_mode():
            return network(ids, mask)[0].numpy()

    return labels_from(names, head, logits_of)


def threads() -> int:
    """Return the threads that the bench gives to a model; 1 elsewhere."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))

"""A text classifier in torch: network, tokenizer and labels, saved to and loaded from a folder.

Two kinds of folder can be loaded: a checkpoint of this project (`config.json` with an "hbt" table: an encoder with
pooling and head, or the n-gram student of `toolkit.modeling.ngram`), and any Hugging Face sequence-classification
model. Weights are safetensors, and remote code is never run.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

from toolkit.evaluation.decision_rule import DecisionRule, rule_from
from toolkit.evaluation.metrics import softmax
from toolkit.modeling.architecture import Sizes, sizes
from toolkit.modeling.hugging_face import from_hugging_face, load_error, trusted_config
from toolkit.modeling.ngram import MODEL_TYPE as NGRAM, NgramConfig, NgramNetwork
from toolkit.modeling.surgery import is_cut, shrink
from toolkit.modeling.tokenizer import TOKENIZER_FILE, encode, max_length_of, read_tokenizer, save_tokenizer
from toolkit.utils.errors import InputError, reason_of

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
MOST_TOKENS = 2**17
"""Of a batch with its padding. An n-gram student reads whole texts: a few hundred long ones at once do not fit."""


class PooledClassifier(nn.Module):
    """Encoder, pooling over tokens, dropout, linear head."""

    def __init__(self, encoder: Any, pooling: str, labels: int, dropout: float) -> None:
        super().__init__()
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # never used, and would be saved with the model
        self.config: Any = encoder.config
        self.encoder = encoder
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.config.hidden_size, labels)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = pool(hidden, attention_mask, self.pooling)  # (batch, width)
        return {"logits": self.head(self.dropout(pooled))}  # (batch, labels)


class SequenceClassifier(nn.Module):
    """A Hugging Face sequence-classification model with the interface of `PooledClassifier`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.config: Any = model.config
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.model(input_ids=input_ids, attention_mask=attention_mask).logits}


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool token vectors (batch, tokens, width) into text vectors (batch, width), ignoring padding."""
    if pooling == "cls":
        return hidden[:, 0]
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
    if pooling == "mean":
        return (hidden * mask).sum(1) / mask.sum(1)
    return (hidden - (1 - mask) * 1e4).max(1).values


@dataclass(frozen=True, eq=False)
class Classifier:
    """A predictor in torch."""

    network: "PooledClassifier | SequenceClassifier | NgramNetwork"
    tokenizer: Tokenizer
    """With the project's normalizer and its truncation, without padding."""
    pad_id: int
    labels: tuple[str, ...]
    rule: DecisionRule | None = None
    """None for an imported model, for which none was chosen yet."""

    @property
    def max_length(self) -> int | None:
        """Maximum number of tokens of a text; None if it reads texts of any length."""
        return max_length_of(self.tokenizer)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @property
    def trainable_parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)

    @property
    def threshold(self) -> float | None:
        return None if self.rule is None else self.rule.threshold

    @property
    def offsets(self) -> tuple[float, ...] | None:
        return None if self.rule is None else self.rule.offsets

    def with_rule(self, rule: DecisionRule) -> "Classifier":
        return replace(self, rule=rule)

    def predict_proba(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """See `toolkit.evaluation.predictor.Predictor`."""
        return softmax(self.predict_logits(texts, batch_size)).astype(np.float32)

    def predict_logits(
        self, texts: Sequence[str], batch_size: int = 32, advance: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Return logits, float32 (texts, labels), in the order of `texts`, computed in batches of similar length.

        advance: called with the number of texts of each batch.
        """
        if isinstance(texts, str):
            raise ValueError("expected a list of texts, not one text: write [text]")
        encoded = encode(self.tokenizer, texts)
        device = next(self.network.parameters()).device
        self.network.eval()
        logits = np.empty((len(texts), len(self.labels)), dtype=np.float32)
        with torch.inference_mode():
            for indices in like_lengths(encoded, batch_size):
                ids, mask = pad([encoded[i] for i in indices], self.pad_id)  # both (batch, tokens)
                out = self.network(ids.to(device), mask.to(device))["logits"]  # (batch, labels)
                logits[indices] = out.float().cpu().numpy()
                if advance is not None:
                    advance(len(indices))
        return logits


def like_lengths(encoded: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Yield batches of indices of texts of similar length, longest first, so that a lack of memory shows early.

    A batch has fewer texts than `batch_size` if it would have more than MOST_TOKENS tokens with its padding.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    start = 0
    while start < len(order):
        longest = max(1, len(encoded[order[start]]))
        end = start + min(batch_size, max(1, MOST_TOKENS // longest))
        yield order[start:end]
        start = end


def pad(encoded: Sequence[Sequence[int]], pad_id: int, to: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask, both int64 (batch, tokens), padded to the longest text, and to `to` at least."""
    longest = max(to, *map(len, encoded)) if len(encoded) > 1 or to else len(encoded[0])
    ids = torch.full((len(encoded), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(encoded), longest), dtype=torch.int64)
    for i, tokens in enumerate(encoded):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        mask[i, : len(tokens)] = 1
    return ids, mask


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write weights, configuration and tokenizer to `folder`, which may exist.

    Raises: TypeError for a Hugging Face classifier.
    """
    network = classifier.network
    if isinstance(network, SequenceClassifier):
        raise TypeError("a Hugging Face classifier cannot be saved as a checkpoint: use its own folder")
    hbt: dict[str, Any] = (classifier.rule or DecisionRule()).as_dict()
    if isinstance(network, PooledClassifier):
        hbt |= {"pooling": network.pooling, "dropout": network.dropout.p}
        if is_cut(network):
            hbt |= {"layers": [asdict(size) for size in sizes(network)]}
    folder.mkdir(parents=True, exist_ok=True)
    config = network.config.to_diff_dict() | {
        "architectures": [type(network).__name__],
        "id2label": dict(enumerate(classifier.labels)),
        "label2id": {name: i for i, name in enumerate(classifier.labels)},
        "hbt": hbt,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    weights = {name: tensor.detach().contiguous().cpu().clone() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    save_tokenizer(classifier.tokenizer, classifier.pad_id, folder / TOKENIZER_FILE)


def load_classifier(folder: Path, dropout: float | None = None, option: str = "--model") -> Classifier:
    """Load the classifier in `folder`, ready to predict.

    dropout: set for the whole encoder of a checkpoint; None keeps the configured value.
    option: command-line option that names the model, for error messages.
    Raises: InputError if `folder` is neither a checkpoint nor a Hugging Face sequence-classification model, or if
    its weights are missing, damaged or do not match the configuration.
    """
    config = read_config(folder)
    if "hbt" not in config:
        return load_sequence_classifier(str(folder), option=option)
    network = _ngram_network(config, folder) if config.get("model_type") == NGRAM else _pooled(config, folder, dropout)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (FileNotFoundError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{folder / WEIGHTS_FILE}: cannot load the weights ({reason_of(error)})") from None
    tokenizer, pad_id = read_tokenizer(folder / TOKENIZER_FILE)
    return Classifier(network.eval(), tokenizer, pad_id, _label_names(config["id2label"]), rule_from(config["hbt"]))


def _pooled(config: dict[str, Any], folder: Path, dropout: float | None) -> PooledClassifier:
    """Build the network described by `config`, with random weights. dropout: see `load_classifier`."""
    from transformers import AutoModel

    try:
        encoder = AutoModel.from_config(trusted_config(folder, dropout), trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise InputError(f"{folder / CONFIG_FILE}: unknown encoder type ({load_error(error)})") from None
    hbt = config["hbt"]
    network = PooledClassifier(encoder, hbt["pooling"], len(config["id2label"]), hbt["dropout"])
    if "layers" in hbt:
        try:
            shrink(network, [Sizes(int(size["heads"]), int(size["neurons"])) for size in hbt["layers"]])
        except (InputError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{folder / CONFIG_FILE}: invalid layer sizes ({reason_of(error)})") from None
    return network


def _ngram_network(config: dict[str, Any], folder: Path) -> NgramNetwork:
    """Build the n-gram network described by `config`, with zero weights."""
    try:
        rows, outputs, words = int(config["rows"]), int(config["outputs"]), int(config.get("word_rows", 0))
    except (KeyError, TypeError, ValueError):
        rows, outputs, words = 0, 0, 0
    labels = len(config["id2label"])
    if rows < 2 or not 0 <= words <= rows - 2 or outputs != (1 if labels == 2 else labels):
        raise InputError(f"{folder / CONFIG_FILE}: rows and outputs do not fit an {NGRAM} model with {labels} labels")
    return NgramNetwork(NgramConfig(rows, outputs, words))


def load_sequence_classifier(model: str, max_length: int | None = None, option: str = "--model") -> Classifier:
    """Load a Hugging Face sequence-classification model from a folder or the hub, with its own head and labels.

    max_length: maximum number of tokens; None takes that of the model.
    option: command-line option that names the model, for error messages.
    Raises: InputError if it cannot be loaded or has no classification head.
    """
    from transformers import AutoModelForSequenceClassification

    loaded, tokenizer, pad_id = from_hugging_face(AutoModelForSequenceClassification, model, max_length, None, option)
    return Classifier(SequenceClassifier(loaded).eval(), tokenizer, pad_id, _label_names(loaded.config.id2label))


def read_config(folder: Path) -> dict[str, Any]:
    """Return the `config.json` of a model folder. Raise InputError if it is missing or is not JSON."""
    try:
        return json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: not a model folder (no {CONFIG_FILE}); give another model, or a folder with one"
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(f"{folder / CONFIG_FILE}: not JSON ({error.msg}); restore it, or give another model") from None


def _label_names(id2label: dict[Any, str]) -> tuple[str, ...]:
    return tuple(name for _, name in sorted(id2label.items(), key=lambda item: int(item[0])))

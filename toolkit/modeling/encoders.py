"""Build a classifier on an encoder from a hub id, from a folder, or of a given shape with its own tokenizer."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from toolkit.config.settings import ModelSettings
from toolkit.modeling.classifier import Classifier, PooledClassifier, load_classifier, read_config
from toolkit.modeling.hugging_face import from_hugging_face
from toolkit.modeling.tokenizer import PAD, train_tokenizer
from toolkit.utils.errors import InputError

HEAD_WIDTH = 32
"""Width of an attention head in an encoder made from a shape, as in MiniLM (Wang et al. 2020)."""


def build_classifier(settings: ModelSettings, labels: tuple[str, ...], texts: Sequence[str], seed: int) -> Classifier:
    """Build a classifier with an untrained head, reproducible from `seed`.

    texts: training texts for the tokenizer of a `shape:` model; pass training rows only.
    Raises: InputError if the encoder cannot be loaded.
    """
    torch.manual_seed(seed)
    shape = parse_shape(settings.model, "--model")
    if shape is not None:
        tokenizer = train_tokenizer(texts, settings.max_length)
        classifier = classifier_from_shape(shape, tokenizer, tokenizer.token_to_id(PAD), settings, labels)
    else:
        encoder, tokenizer, pad_id = _pretrained(settings)
        network = PooledClassifier(encoder, settings.pooling, len(labels), settings.dropout)
        classifier = Classifier(network, tokenizer, pad_id, labels)
    if settings.freeze_base:
        classifier.network.encoder.requires_grad_(False)
    return classifier


def _pretrained(settings: ModelSettings) -> tuple[Any, Tokenizer, int]:
    """Load encoder, tokenizer and padding id from a checkpoint of this project, a Hugging Face folder or a hub id."""
    folder = Path(settings.model)
    if folder.is_dir() and "hbt" in read_config(folder):
        classifier = load_classifier(folder, settings.dropout)
        classifier.tokenizer.enable_truncation(min(settings.max_length, classifier.max_length or settings.max_length))
        return classifier.network.encoder, classifier.tokenizer, classifier.pad_id
    from transformers import AutoModel

    return from_hugging_face(AutoModel, settings.model, settings.max_length, settings.dropout)


def parse_shape(text: str, option: str) -> tuple[int, int, int] | None:
    """Return (layers, width, heads) of `shape:LxH[xA]`, or None if `text` is not a shape.

    option: command-line option of `text`, for error messages.
    Raises: InputError if the shape is invalid.
    """
    if not text.startswith("shape:"):
        return None
    numbers = re.fullmatch(r"shape:(\d+)x(\d+)(?:x(\d+))?", text)
    if numbers:
        layers, width = int(numbers[1]), int(numbers[2])
        heads = int(numbers[3] or width // HEAD_WIDTH)
        if layers >= 1 and heads >= 1 and width % heads == 0 and (numbers[3] or width % HEAD_WIDTH == 0):
            return layers, width, heads
    raise InputError(
        f"{option} {text}: use shape:LxH for L layers of width H, a multiple of {HEAD_WIDTH}, such as shape:4x128, "
        "or shape:LxHxA for A heads, where A divides H, such as shape:4x120x6"
    )


def classifier_from_shape(
    shape: tuple[int, int, int], tokenizer: Tokenizer, pad_id: int, settings: ModelSettings, labels: tuple[str, ...]
) -> Classifier:
    """Build a classifier on a BERT encoder of the given (layers, width, heads) with random weights."""
    from transformers import BertConfig, BertModel

    layers, width, heads = shape
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=tokenizer.truncation["max_length"],
        type_vocab_size=1,
        pad_token_id=pad_id,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=settings.dropout,
    )
    encoder = BertModel(config, add_pooling_layer=False)
    network = PooledClassifier(encoder, settings.pooling, len(labels), settings.dropout)
    return Classifier(network, tokenizer, pad_id, labels)

"""Load models and tokenizers in the format of Hugging Face: safetensors only, and no code of the model is run."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from toolkit.data.normalization import with_normalizer
from toolkit.modeling.tokenizer import TOKENIZER_FILE
from toolkit.utils.console import say
from toolkit.utils.errors import InputError, reason_of
from toolkit.utils.hub import NoHub, quiet_client, require_answer, shows_downloads

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
"""Names of dropout settings in `config.json`, by architecture."""
UNKNOWN_LENGTH = 512
"""Tokens that a model reads if its configuration does not say."""


def _with(option: str) -> str:
    """Return how to give another value for an option or, without dashes, for an argument of the command."""
    return f"with {option} PATH" if option.startswith("-") else f"as {option}"


def from_hugging_face(
    auto_class: Any, model: str, max_length: int | None, dropout: float | None = None, option: str = "--model"
) -> tuple[Any, Tokenizer, int]:
    """Load model, tokenizer and padding id from a hub id or folder: float32, safetensors only, no remote code.

    max_length: maximum number of tokens; None takes that of the model, and a larger one is reduced to it.
    dropout: set for the whole model; None keeps the configured value.
    Raises: InputError if the hub cannot be reached or the model cannot be used.
    """
    from transformers import AutoTokenizer
    from transformers.utils import cached_file

    quiet_transformers()
    if Path(model).exists() and not Path(model).is_dir():
        raise InputError(f"{model}: cannot be loaded (it is not a folder); give another model {_with(option)}")
    no_hub = ""
    if not Path(model).is_dir():
        say(f"{model}: no such folder; looking for it on the Hugging Face hub")
        no_hub = _no_hub(model)
    local = {"local_files_only": bool(no_hub)}  # a copy in the cache does
    try:
        config = trusted_config(model, dropout, **local)
        loaded, report = auto_class.from_pretrained(
            model,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            **local,
        )
        fast = AutoTokenizer.from_pretrained(model, use_fast=True, trust_remote_code=False, **local)
        # Transformers 5 keeps the vocabulary of this file and may put its own normalizer in the place of the file's.
        own = cached_file(model, TOKENIZER_FILE, _raise_exceptions_for_missing_entries=False, **local)
        tokenizer = Tokenizer.from_file(own) if own is not None and fast.is_fast else None
    except Exception as error:  # for damaged files, the libraries raise errors of any type
        fix = f"give {'another model' if Path(model).exists() else 'a folder'} {_with(option)}"
        absent = no_hub and isinstance(error, OSError)
        reason = f"{no_hub}, and it is not in the cache" if absent else load_error(error)
        raise InputError(f"{model}: cannot be loaded ({reason}); {fix}") from error
    missing = [
        name for name in sorted(report["missing_keys"]) if "pooler" not in name or "Classification" in str(auto_class)
    ]
    if missing:
        raise InputError(
            f"{model}: {missing[0]} and {len(missing) - 1} other weights are missing; give another model "
            f"{_with(option)}"
        )
    if own is None and len(fast) <= len(fast.all_special_tokens):  # transformers 5 makes an empty one
        raise InputError(f"{model}: no tokenizer; add {TOKENIZER_FILE}, or give another model {_with(option)}")
    if not fast.is_fast or fast.pad_token is None:
        raise InputError(f"{model}: no fast tokenizer with a padding token; convert it to tokenizer.json first")
    longest = _positions(loaded)
    if max_length is None:  # the tokenizer may know better than the positions; without a limit, it has 1e30
        max_length = min(longest, int(fast.model_max_length)) if fast.model_max_length >= 2 else longest
    tokenizer = with_normalizer(tokenizer if tokenizer is not None else fast.backend_tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=min(max_length, longest))
    return loaded, tokenizer, fast.pad_token_id


def _positions(network: nn.Module) -> int:
    """Return the number of tokens that a Hugging Face model can read, without the positions it reserves for padding."""
    for name, module in network.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1  # as in RoBERTa
            return module.num_embeddings - reserved
    stated = getattr(network.config, "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else UNKNOWN_LENGTH


def _no_hub(model: str) -> str:
    """Return why the hub cannot be asked for a model; an empty string if it answers."""
    try:
        require_answer(model)
    except NoHub as problem:
        return str(problem)
    return ""


def trusted_config(model: str | Path, dropout: float | None, local_files_only: bool = False) -> Any:
    """Return the configuration of a model, without what names code: of its own, or a kernel on the hub.

    dropout: set for the whole model; None keeps the configured value.
    local_files_only: do not ask the hub.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model, trust_remote_code=False, local_files_only=local_files_only)
    config._attn_implementation = None
    for name in DROPOUTS:
        if dropout is not None and hasattr(config, name):
            setattr(config, name, dropout)
    return config


def load_error(error: Exception) -> str:
    if "trust_remote_code" in str(error):  # the advice of transformers is to run it
        return "it needs Python code of its own, which hbt does not run"
    return reason_of(error)


def quiet_transformers() -> None:
    """Silence warnings about untrained heads and retried downloads, and the progress bar for reading weights."""
    from transformers.utils import logging as transformers_logging

    downloads = shows_downloads()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()  # for reading weights since transformers 5; and those of downloads
    quiet_client(downloads)

"""Classify texts with the model in this folder, on any CPU.

    python how_to_load.py "text" ["another text" …]

or, from Python:

    from how_to_load import load
    model = load()
    model.predict(["text"])           # [("label", probability of that label)]
    model.predict_proba(["text"])     # float32 (texts, labels)

Needs what requirements.txt lists, nothing else.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from tokenizers import Tokenizer

Network = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""Token ids (batch, tokens) and their mask, 0 at padding, None if there is none -> logits float32 (batch, labels)."""


class Model:
    """A text classifier: text in, label out. Normalizing and cutting are those of the tokenizer."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        names = sorted(config["id2label"].items(), key=lambda item: int(item[0]))
        self.labels: tuple[str, ...] = tuple(name for _, name in names)
        self.threshold: float | None = config["threshold"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.pad_id: int = self.tokenizer.padding["pad_id"]
        self.tokenizer.no_padding()
        by_character = config.get("model_type") == "ngram"
        self.characters = _characters(self.tokenizer) if by_character else None
        """Token ids of a text without the detours of a general tokenizer."""
        self.network = _network(folder, threads)

    def predict(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The label of each text and its probability; of two labels the second wins from the threshold on."""
        probabilities = self.predict_proba(texts)
        if len(self.labels) == 2 and self.threshold is not None:
            chosen = (probabilities[:, 1] >= self.threshold).astype(int)
        else:
            chosen = probabilities.argmax(axis=1)
        return [(self.labels[i], float(row[i])) for i, row in zip(chosen, probabilities, strict=True)]

    def predict_proba(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """float32 (texts, labels): rows sum to 1, in the order of `texts`, columns in the order of `labels`.

        Each text is scored alone unless a batch size is given: on few cores padding costs more than batches save. The
        card says whether a text that shares a batch gets other scores.
        """
        logits = self.predict_logits(texts, batch_size)
        if len(logits) == 1:  # numpy takes longer to start than to compute
            row = logits[0].tolist()
            largest = max(row)
            exponentials = [math.exp(logit - largest) for logit in row]
            total = sum(exponentials)
            return np.array([[value / total for value in exponentials]], dtype=np.float32)
        shifted = logits.astype(np.float64)
        shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)

    def predict_logits(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """float32 (texts, labels); texts of like length share a batch, if it is more than one."""
        if len(texts) == 1:
            return self.network(self._token_ids(texts[0])[None], None)
        if self.characters is not None:
            encoded = [self.characters(text) for text in texts]
        else:
            encoded = [np.array(found.ids, dtype=np.int64) for found in self.tokenizer.encode_batch(list(texts))]
        logits = np.empty((len(encoded), len(self.labels)), dtype=np.float32)
        if batch_size == 1:
            for i, ids in enumerate(encoded):
                logits[i] = self.network(ids[None], None)[0]
            return logits
        lengths = np.array([len(ids) for ids in encoded])
        order = lengths.argsort(kind="stable")
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = np.full((len(chosen), lengths[chosen[-1]]), self.pad_id, dtype=np.int64)
            for row, i in zip(batch, chosen, strict=True):
                row[: lengths[i]] = encoded[i]
            mask = (np.arange(batch.shape[1]) < lengths[chosen, None]).astype(np.int64)
            logits[chosen] = self.network(batch, mask)
        return logits

    def _token_ids(self, text: str) -> np.ndarray:
        """int64 (tokens,)."""
        if self.characters is not None:
            return self.characters(text)
        return np.array(self.tokenizer.encode(text).ids, dtype=np.int64)


def _network(folder: Path, threads: int | None) -> Network:
    """What the model file in `folder` computes, by the runtime that it is for."""
    if (folder / "network.json").is_file():
        return _torch(folder, threads)
    if (folder / "model.xml").is_file():
        return _openvino(folder / "model.xml", threads)
    return _onnx(folder / "model.onnx", threads)


def _onnx(file: Path, threads: int | None) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    masked = "attention_mask" in {entry.name for entry in session.get_inputs()}

    def run(ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        feed = {"input_ids": ids}
        if masked:
            feed["attention_mask"] = np.ones_like(ids) if mask is None else mask
        return session.run(["logits"], feed)[0]

    return run


def _openvino(file: Path, threads: int | None) -> Network:
    # Importing openvino tells its makers and leaves an id in the home folder, unless it finds no openvino_telemetry.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    # bf16, the default where the processor has it, gives other scores than a processor without it.
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    request = openvino.Core().compile_model(str(file), "CPU", options).create_infer_request()
    alone = Lock()  # a request has one set of tensors

    def run(ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        attention = np.ones_like(ids) if mask is None else mask
        with alone:
            # Shared tensors: infer(dict) copies and looks each up, which shows at a batch of one.
            request.set_tensor("input_ids", openvino.Tensor(ids, shared_memory=True))
            request.set_tensor("attention_mask", openvino.Tensor(attention, shared_memory=True))
            request.infer()
            return request.get_tensor("logits").data.copy()

    return run


def _torch(folder: Path, threads: int | None) -> Network:
    """A transformer in PyTorch. network.json says how it is built; nothing is unpickled, no code of a model is run."""
    import torch
    from safetensors.torch import load_file

    if threads:
        torch.set_num_threads(threads)  # PyTorch knows this for the whole process only
    built = json.loads((folder / "network.json").read_text("utf-8"))
    network = _torch_skeleton(built)
    _torch_fill(network, load_file(folder / "model.safetensors"), built["int8"])
    network.eval()

    def run(ids: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        with torch.inference_mode():
            tokens = torch.from_numpy(ids)
            attention = torch.ones_like(tokens) if mask is None else torch.from_numpy(mask)
            return _torch_logits(network, built["pooling"], tokens, attention).numpy()

    return run


def _torch_skeleton(built: dict[str, Any]) -> Any:
    """The modules of the network without numbers, under the names that they have in the weights' file."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    # These could name code to fetch; a network of this kind needs none.
    config = {k: v for k, v in built["config"].items() if k != "auto_map" and "attn_implementation" not in k}
    described = AutoConfig.for_model(**config)
    with torch.device("meta"):
        if built["kind"] == "SequenceClassifier":
            made = AutoModelForSequenceClassification.from_config(described, trust_remote_code=False)
            network = torch.nn.ModuleDict({"model": made})
        else:
            encoder = AutoModel.from_config(described, trust_remote_code=False)
            if getattr(encoder, "pooler", None) is not None:
                encoder.pooler = None
            head = torch.nn.Linear(described.hidden_size, built["labels"])
            network = torch.nn.ModuleDict({"encoder": encoder, "head": head})
    for name, attributes in built["attributes"].items():  # the attention of pruned layers has fewer heads
        for attribute, value in attributes.items():
            setattr(network.get_submodule(name), attribute, int(value))
    return network


def _torch_fill(network: Any, tensors: dict[str, Any], int8: list[str]) -> None:
    """Give every parameter and every buffer of `network` its numbers, and the modules named in `int8` theirs."""
    import torch

    linear, table = _torch_int8_modules()
    for name in int8:
        old = network.get_submodule(name)
        kind = table if isinstance(old, torch.nn.Embedding) else linear
        weight, scale = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.scale")
        network.set_submodule(name, kind(weight, scale, tensors.pop(f"{name}.bias", None)))
    for name, tensor in tensors.items():
        path, _, own = name.rpartition(".")
        module = network.get_submodule(path)
        is_parameter = isinstance(getattr(module, own), torch.nn.Parameter)
        setattr(module, own, torch.nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)
    empty = [name for name, tensor in (*network.named_parameters(), *network.named_buffers()) if tensor.is_meta]
    if empty:
        raise ValueError(f"model.safetensors lacks {empty[0]} and {len(empty) - 1} more")


def _torch_int8_modules() -> tuple[Any, Any]:
    """What stands where a linear map was, and where a table was: int8 weight (rows, columns), float scale (rows,) or,
    one for the whole matrix, (1,)."""
    import warnings

    import torch

    # Without VNNI, sums of two products can saturate: PyTorch then takes seven bits for activations. (Its own module
    # always does so, which loses a bit where nothing saturates.)
    reduce_range = not getattr(torch.cpu, "_is_vnni_supported", bool)()

    class Int8Linear(torch.nn.Module):
        def __init__(self, weight: Any, scale: Any, bias: Any) -> None:
            super().__init__()
            restored = weight.float() * scale[:, None]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a later PyTorch drops such tensors; requirements.txt pins this one
                if len(scale) == 1:
                    quantized = torch.quantize_per_tensor(restored, float(scale), 0, torch.qint8)
                else:
                    zeros = torch.zeros(len(scale), dtype=torch.int64)
                    quantized = torch.quantize_per_channel(restored, scale.double(), zeros, 0, torch.qint8)
            self.packed = torch.ops.quantized.linear_prepack(quantized, bias)

        @property
        def weight(self) -> Any:  # some architectures look at it
            return torch.ops.quantized.linear_unpack(self.packed)[0].dequantize()

        def forward(self, x: Any) -> Any:
            return torch.ops.quantized.linear_dynamic(x, self.packed, reduce_range)

    class Int8Table(torch.nn.Module):
        def __init__(self, weight: Any, scale: Any, _: None) -> None:
            super().__init__()
            self.rows, self.scale = weight, scale[:, None]

        @property
        def weight(self) -> Any:
            return self.rows * self.scale

        def forward(self, ids: Any) -> Any:
            return torch.nn.functional.embedding(ids, self.rows) * torch.nn.functional.embedding(ids, self.scale)

    return Int8Linear, Int8Table


def _torch_logits(network: Any, pooling: str | None, ids: Any, mask: Any) -> Any:
    """float32 (batch, labels) of ids and mask, both int64 (batch, tokens)."""
    if pooling is None:
        return network["model"](input_ids=ids, attention_mask=mask).logits
    hidden = network["encoder"](input_ids=ids, attention_mask=mask).last_hidden_state  # (batch, tokens, width)
    if pooling == "cls":
        return network["head"](hidden[:, 0])
    real = mask.unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
    if pooling == "mean":
        return network["head"]((hidden * real).sum(1) / real.sum(1))
    return network["head"]((hidden - (1 - real) * 1e4).max(1).values)


def _characters(tokenizer: Tokenizer) -> Callable[[str], np.ndarray]:
    """The same ids as those of `tokenizer`, whose tokens are characters, several times as fast: int64 (tokens,)."""
    normalize = tokenizer.normalizer.normalize_str
    edge = tokenizer.encode("").tokens[0]  # what stands for a space, and at both ends of a text
    content = tokenizer.truncation["max_length"] - 2
    ids = {ord(token): i for token, i in tokenizer.get_vocab().items() if len(token) == 1}
    id_of = np.full(max(ids) + 2, tokenizer.token_to_id("[UNK]"), dtype=np.int64)  # code point -> id
    id_of[list(ids)] = list(ids.values())

    def encode(text: str) -> np.ndarray:
        codes = np.frombuffer(f"{edge}{normalize(text)[:content]}{edge}".encode("utf-32-le"), dtype="<u4")
        return id_of.take(codes, mode="clip")  # a code point beyond the last known one is cut to an unknown one

    return encode


def load(folder: str | os.PathLike[str] | None = None, threads: int | None = None) -> Model:
    """The model in `folder`, by default the folder of this file. threads: at most this many; None leaves it to the
    runtime."""
    return Model(Path(folder) if folder is not None else Path(__file__).parent, threads)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit('usage: python how_to_load.py "text" ["another text" …]')
    for text, (label, score) in zip(sys.argv[1:], load().predict(sys.argv[1:]), strict=True):
        print(f"{label}\t{score:.4f}\t{text}")

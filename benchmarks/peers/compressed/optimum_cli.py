"""optimum: `optimum-cli export onnx`, then `optimum-cli onnxruntime quantize`, as its documentation shows.

It runs in an environment of its own, since optimum-onnx needs an older transformers. Two models share the files:
optimum-int8 is loaded and run by optimum and AutoTokenizer; optimum-int8-session is the same graph in a session of
ONNX Runtime, without what optimum adds to a text.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.common import Given, Label, Missing, Rows
from benchmarks.peers.compressed.choice import chosen, facts
from benchmarks.peers.compressed.sessions import session_labels
from benchmarks.peers.compressed.teacher import ENCODER, copy_parts, labels_from, read_head, teacher_of, threads

MODEL, SESSION = "optimum-int8", "optimum-int8-session"
PROCESSORS = ("avx512_vnni", "avx512f", "avx2", "asimd")
OPTIONS = {"avx512_vnni": "--avx512_vnni", "avx512f": "--avx512", "avx2": "--avx2", "asimd": "--arm64"}
"""CPU flag, the best first -> the option of optimum-cli for such processors."""


def train(rows: Rows, folder: Path, given: Given) -> dict[str, Any]:
    """Export and quantize the encoder of the teacher with the setting that is best on validation rows."""
    from toolkit.utils.machine import describe_machine

    parts, flags = teacher_of(given), describe_machine().flags
    copy_parts(parts, folder, encoder=False)
    option = next((OPTIONS[flag] for flag in PROCESSORS if flag in flags), "--avx2")
    settings = [{"options": [option, *more]} for more in ([], ["--per_channel"])]
    floats = folder / "float"
    _cli("export", "onnx", "--model", str(parts / ENCODER), "--task", "feature-extraction", str(floats))
    label = partial(_session, rows.names, folder)
    make = partial(_make, floats)
    trial = chosen(rows, settings, make, label, read_head(parts).validation_macro_f1, folder)
    shutil.rmtree(floats)
    return facts(trial, MODEL, SESSION)


def load(folder: Path, names: Sequence[str], model: str) -> Label:
    """Return the function that labels texts. model: MODEL or SESSION."""
    return _session(names, folder, folder / "chosen") if model == SESSION else _pipeline(names, folder)


def _make(floats: Path, settings: dict[str, Any], folder: Path) -> None:
    _cli("onnxruntime", "quantize", "--onnx_model", str(floats), "-o", str(folder), *settings["options"])


def _cli(*arguments: str) -> None:
    done = subprocess.run(["optimum-cli", *arguments], capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Missing(f"optimum-cli {arguments[0]}: {lines[-1] if lines else done.returncode}")


def _session(names: Sequence[str], parts: Path, folder: Path) -> Label:
    return session_labels(names, parts, folder / "model_quantized.onnx")


def _pipeline(names: Sequence[str], folder: Path) -> Label:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    tokenizer = AutoTokenizer.from_pretrained(folder / ENCODER, trust_remote_code=False)
    model = ORTModelForFeatureExtraction.from_pretrained(
        folder / "chosen", file_name="model_quantized.onnx", session_options=options, trust_remote_code=False
    )
    head = read_head(folder)
    longest = json.loads((folder / ENCODER / "tokenizer.json").read_text("utf-8"))["truncation"]["max_length"]

    def logits_of(text: str) -> np.ndarray:
        inputs = tokenizer(text, truncation=True, max_length=longest, return_tensors="np")
        return head.logits(model(**inputs).last_hidden_state[0])

    return labels_from(names, head, logits_of)

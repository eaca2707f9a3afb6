"""Run an ONNX file with ONNX Runtime, as a user would for the lowest latency: no torch, one session, no padding."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers.common import Label
from benchmarks.peers.compressed.teacher import labels_from, read_head, read_tokenizer, threads


def session_labels(names: Sequence[str], parts: Path, file: Path) -> Label:
    """Return the function that labels texts with a graph whose first output is hidden states or logits.

    parts: folder with head and tokenizer.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    head, tokenizer = read_head(parts), read_tokenizer(parts)
    wanted = [entry.name for entry in session.get_inputs()]
    (output,) = [entry.name for entry in session.get_outputs()][:1]

    def logits_of(text: str) -> np.ndarray:
        encoded = tokenizer.encode(text)
        rows = {
            "input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids
        }  # fmt: skip
        found = session.run([output], {name: np.array([rows[name]], dtype=np.int64) for name in wanted})[0]
        return head.logits(found[0]) if found.ndim == 3 else found[0]

    return labels_from(names, head, logits_of)

"""Label texts with a pipeline of transformers, on one thread a process, as its documentation shows it.

python pipeline_way.py transformers|optimum MODEL TEXTS.json BATCH THREADS

It runs in any Python that has transformers (and optimum). Prints one line of JSON; the time of loading is not counted.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

from transformers import AutoTokenizer, pipeline

kind, model, texts_file, batch, threads = sys.argv[1:]
texts = json.loads(Path(texts_file).read_text("utf-8"))
tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
if kind == "optimum":
    import onnxruntime
    from optimum.onnxruntime import ORTModelForSequenceClassification

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    network = ORTModelForSequenceClassification.from_pretrained(model, session_options=options, trust_remote_code=False)
else:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(int(threads))
    network = AutoModelForSequenceClassification.from_pretrained(model, trust_remote_code=False)
classify = pipeline("text-classification", model=network, tokenizer=tokenizer)
options_of_call = {"truncation": True, "max_length": min(tokenizer.model_max_length, 512), "batch_size": int(batch)}
classify(texts[:2], **options_of_call)
started, cpu = time.perf_counter(), time.process_time()
answers = classify(texts, **options_of_call)
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
assert len(answers) == len(texts)
distribution = "optimum-onnx" if kind == "optimum" else "transformers"
shown = {"version": f"{distribution} {version(distribution)}", "seconds": seconds, "cpu_seconds": cpu}
print(json.dumps(shown))

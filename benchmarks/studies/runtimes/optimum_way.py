"""Score texts with optimum and the pipeline of transformers, as their documentation shows it.

python optimum_way.py PACKAGE TEXTS.json OUT.json
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import onnxruntime
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

package, texts_file, out = map(Path, sys.argv[1:])
texts = json.loads(texts_file.read_text("utf-8"))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
model = ORTModelForSequenceClassification.from_pretrained(package, session_options=options, trust_remote_code=False)
tokenizer = AutoTokenizer.from_pretrained(package, trust_remote_code=False)
classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
classify(texts[:1], truncation=True)
first = time.time()
probabilities, ms = [], []
for text in texts:
    start = time.perf_counter()
    scores = {each["label"]: each["score"] for each in classify(text, truncation=True, top_k=None)}
    ms.append(1000 * (time.perf_counter() - start))
    probabilities.append([scores[model.config.id2label[i]] for i in range(len(scores))])
found = {"version": f"optimum-onnx {version('optimum-onnx')}", "first": first, "probabilities": probabilities, "ms": ms}
out.write_text(json.dumps(found), "utf-8")

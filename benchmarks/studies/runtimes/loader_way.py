"""Score texts with how_to_load.py, in a Python that has only the requirements of the package.

python loader_way.py PACKAGE TEXTS.json OUT.json
"""

import json
import runpy
import sys
import time
from pathlib import Path

package, texts_file, out = map(Path, sys.argv[1:])
texts = json.loads(texts_file.read_text("utf-8"))
model = runpy.run_path(str(package / "how_to_load.py"))["load"](package, threads=1)
model.predict(texts[:1])
first = time.time()
probabilities, ms = [], []
for text in texts:
    start = time.perf_counter()
    probabilities.append(model.predict_proba([text])[0].tolist())
    ms.append(1000 * (time.perf_counter() - start))
found = {"version": f"Python {sys.version.split()[0]}", "first": first, "probabilities": probabilities, "ms": ms}
out.write_text(json.dumps(found), "utf-8")

"""One module per target, each for one runtime. The registry is `exporters.registry`."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported, which reports its use since 1.29

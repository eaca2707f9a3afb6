"""Targets of n-gram students: the ONNX graph, and files that need no runtime. The registry is `exporters.registry`."""

"""Parts of the loaders of packages that ONNX Runtime runs."""

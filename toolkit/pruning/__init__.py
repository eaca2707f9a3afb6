"""Pruning: structured (heads, neurons and layers are removed) and unstructured (single weights are set to zero)."""

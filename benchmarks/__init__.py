"""Measuring predictors: accuracy beside the floor, latency, memory, size."""

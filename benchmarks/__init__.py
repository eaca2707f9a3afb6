"""Measuring predictors: accuracy beside the linear baseline, latency, memory, size."""

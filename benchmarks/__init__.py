"""Measure predictors: accuracy compared with the linear baseline, latency, memory, size."""

"""Whether a package gives the same labels and scores on other processors: `python -m benchmarks.portability`."""

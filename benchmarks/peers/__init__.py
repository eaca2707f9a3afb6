"""Classifiers that people would otherwise use, trained on the same rows and measured in the same bench."""

"""Labeled files that nothing here was tuned on."""

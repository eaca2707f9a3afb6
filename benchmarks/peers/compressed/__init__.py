"""Peers that compress the teacher, or are measured instead of it: all start from the same trained checkpoint."""

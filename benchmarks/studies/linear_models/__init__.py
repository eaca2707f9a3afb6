"""Solver and penalty of the linear models."""

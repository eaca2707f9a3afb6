"""Pruning: heads, neurons and layers that leave the network, and weights that become zeros in it."""

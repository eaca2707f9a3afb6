"""Machines that `hbt bench --cpu-target` imitates, one TOML file each."""

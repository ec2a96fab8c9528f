"""Measurements: `python -m benchmarks.NAME` prints a table and writes results/NAME.json with the machine in it."""

"""Benchmarks: `make bench-AREA` runs the module of that name."""

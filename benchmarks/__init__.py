"""Measurements behind the tables in the docs; each module runs as ``python -m benchmarks.NAME``."""

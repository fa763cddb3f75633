"""The parts of ``python -m benchmarks.checkpoint_latency``.

rows.py     a table with three indexes, and one-row writes
latency.py  the contenders, taking turns
results.py  figures
"""

"""The parts of ``python -m benchmarks.processes``.

doors.py       the doors through which the database is opened
work.py        the work of one process
running.py     all processes of a run, started at the same instant
results.py     figures, and their targets
"""

"""The parts of ``python -m benchmarks.processes``.

doors.py       who opens the database, and how
work.py        what one process does
running.py     all processes of a run, from the same instant on
results.py     figures, and what was asked of them
"""

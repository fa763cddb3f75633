"""The parts of ``python -m benchmarks.wal_hour``.

phases.py    the activity in each phase
outsider.py  another program, which keeps its read transaction open
hour.py      the hour, with one database
results.py   figures
picture.py   docs/wal_hour.png
"""

"""The parts of ``python -m benchmarks.wal_hour``.

phases.py    what goes on when
outsider.py  another program, which stays in its read transaction
hour.py      the hour, with one database
results.py   figures
picture.py   docs/wal_hour.png
"""

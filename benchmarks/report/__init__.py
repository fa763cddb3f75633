"""Figures, and what is said of them.

asked.py    what was asked of this package, beside what was measured
results.py  figures of runs, and what several rounds of them say
reports.py  what was written as JSON, read again
output.py   a console, and a file if one is asked for
tables.py   what ``python -m benchmarks`` prints
"""

"""Figures, and their presentation.

asked.py    the targets of this package, compared to measurements
results.py  figures of runs, and their summaries over several rounds
reports.py  reading of reports written as JSON
output.py   a console, and a file if one is asked for
tables.py   the output of ``python -m benchmarks``
"""

"""The parts of ``python -m benchmarks.plots``: docs/benchmarks.md and its pictures, from a report.

markdown.py    tables
answers.py     the conclusions from the figures, in words
finding.py     loads of a report
blocks.py      the parts of the page, and the function that writes each
style.py       colours, and how pictures are saved
cores.py       one core and all cores, and why they differ
open_loop.py   requests at random moments
pythons.py     several Pythons and event loops
bars.py        throughput and latency of the contenders of a load
lines.py       series: more tasks, more schema objects, larger files
"""

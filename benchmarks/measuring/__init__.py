"""Measuring, and the machine on which it is done.

clocks.py       clocks and counts of one run
cores.py        the number of cores that a run may use
event_loops.py  the event loop under all contenders
ticking.py      a process that signals the arrival of requests
environment.py  versions, machine, file system
"""

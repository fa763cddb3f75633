"""What measures, and the machine that it measures on.

clocks.py       clocks and counts of one run
cores.py        how many cores a run may use
event_loops.py  the event loop under all contenders
ticking.py      a process that says when requests arrive
environment.py  versions, machine, file system
"""

"""Processes that write to one file are killed, one after the other, and the others continue.

Real processes behind different doors of the package, one real file, and SIGKILL five times per
second: ``python -m tests.kills``. Acknowledged commits are in the file, others are complete or
absent, and no process waits for a killed one.

    diary.py     a process's record of its requests, turns and ends, which survives a kill
    work.py      the work of the tasks of a process
    process.py   one process
    figures.py   times without commits, the longest waits, the processes hit by kills
    run.py       the processes, their ends, and the result

The tables and the oracle are from ``tests/checkpoints``; code shared by all campaigns is in
``tests/campaigns.py`` and ``tests/commands.py``.
"""

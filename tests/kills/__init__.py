"""Processes that write one file are killed, one after the other, and the others go on.

Real processes behind different doors of the package, one real file, and SIGKILL five times a
second: ``python -m tests.kills``. What is acknowledged is there, what was not is there whole or not
at all, and nobody waits for the dead.

    diary.py     when a process asked, had the turn and was done, also if it is killed
    work.py      what the tasks of a process do
    process.py   one process
    figures.py   how long nobody committed, who waited longest, whom the kills hit
    run.py       the processes, their ends, and the result

The tables and the oracle are those of ``tests/checkpoints``; what all campaigns share is in
``tests/campaigns.py`` and ``tests/commands.py``.
"""

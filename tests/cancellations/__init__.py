"""Cancel everything, everywhere, at random, and check that nothing is lost or left behind.

Real tasks on a real file, through all doors at the same time: ``python -m tests.cancellations``.

    oracle.py      the expected content: every row has a token, every token a fate
    doors.py       the ways to the database, and whether they are at rest
    operations.py  the operations of the tasks
    functions.py   operations through functions, prepared reads and copies
    table.py       the frequency of the operations, and their doors
    moments.py     the moments of cancellation
    noise.py       unnoticed log messages, warnings and exceptions
    tasks.py       the tasks of one event loop
    run.py         the doors, the rests and the result
    loops/         several event loops at the same time
"""

"""Cancel everything, everywhere, at random, and see that nothing is lost and nothing left behind.

Real tasks on a real file, through all doors at the same time: ``python -m tests.cancellations``.

    oracle.py      what was written: every row has a token, every token a fate
    doors.py       the ways to the database, and whether they are at rest
    operations.py  what the tasks do
    functions.py   what they do by functions, prepared reads and copies
    table.py       how often, and through which doors
    moments.py     when they are cancelled
    noise.py       what was logged, warned or raised where nobody looks
    tasks.py       the tasks of one event loop
    run.py         the doors, the rests and the result
    loops/         several event loops at the same time
"""

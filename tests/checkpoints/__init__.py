"""Many processes write and checkpoint one file, and nothing that was acknowledged is lost.

Real processes, each with a loop and a :class:`~sa_sqlite_pool.SQLiteDatabase` of its own, on one
real file whose log begins anew some hundred times a second: ``python -m tests.checkpoints``.

    journal.py             what a process knows of its transactions, also if it is killed
    oracle.py              the file has the last word
    work.py                what the tasks of a process do
    process.py             one process
    children.py            the processes as their parent sees them
    log_watch.py           how often the log began anew, and how large it was
    run.py                 the processes, their ends, and the result
    window.py              the moment in which a checkpoint can lose commits, held open
    without_protection.py  that loss, step by step; a program, too
    outsider.py            a process that knows nothing of this package
"""

"""Many processes write to and checkpoint one file, and no acknowledged commit is lost.

Real processes, each with its own loop and :class:`~sa_sqlite_pool.SQLiteDatabase`, on one real file
whose log restarts some hundred times per second: ``python -m tests.checkpoints``.

    journal.py             a process's record of its transactions, which survives a kill
    oracle.py              the check of the file
    work.py                the work of the tasks of a process
    process.py             one process
    children.py            the processes as seen by their parent
    log_watch.py           the number of restarts of the log, and its size
    run.py                 the processes, their ends, and the result
    window.py              the moment in which a checkpoint can lose commits, held open
    without_protection.py  that loss, step by step; also a program
    outsider.py            a process that does not use this package
"""

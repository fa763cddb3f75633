"""Backends and sockets of a replica are killed under sessions that read there, then write.

One kill for each session, at a random moment: ``python -m tests.replica_kills``. The primary keeps
running, so no write, COMMIT, ROLLBACK or close may fail, and reported outcomes are true there.

    doors.py     auto sessions over plain engines and over a facade, with each driver
    killer.py    ends the backend of a reader, or cuts its socket
    work.py      the work of one session, and its reported outcome
    run.py       the sessions, the primary's tables after them, and the result
"""

"""Backends and sockets of a replica are killed under sessions that read there, then write.

One kill for each session, at a random moment of it: ``python -m tests.replica_kills``. The primary
lives, so no write, COMMIT, ROLLBACK or close may fail, and what a session was told is so there.

    doors.py     auto sessions over plain engines and over a facade, with each driver
    killer.py    ends the backend of a reader, or cuts its socket
    work.py      what one session does, and what it was told
    run.py       the sessions, the primary's tables after them, and the result
"""

"""A program that forks as SQLAlchemy says: ``python -m tests.servers.forking URL REPLICA``.

It prints the server's processes of the parent's connections, those of the child's after
``dispose(close=False)``, and those of the parent's again. A child that hangs is ended by its alarm.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import warnings

from sqlalchemy import text

from sa_sqlite_pool import ServerDatabase
from tests.programs import say

CHILD_SECONDS = 15


async def processes(db: ServerDatabase) -> str:
    """Return the ids of the server's processes that write and read."""
    async with db.writer_engine.connect() as writer, db.reader_engine.connect() as reader:
        found = [await one.scalar(text("SELECT pg_backend_pid()")) for one in (writer, reader)]
    return " ".join(map(str, found))


async def in_child(db: ServerDatabase) -> str:
    """Let go of the parent's connections, and use others."""
    for engine in (db.writer_engine, db.reader_engine):
        await engine.dispose(close=False)
    found = await processes(db)
    gc.collect()
    for engine in (db.writer_engine, db.reader_engine):
        await engine.dispose()
    return found


def main(url: str, replica: str) -> None:
    """Fork between two uses of a database."""
    db = ServerDatabase(url, replicas=[replica])
    loop = asyncio.new_event_loop()
    say(loop.run_until_complete(processes(db)))
    with warnings.catch_warnings():  # from 3.12 on, of threads
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        signal.alarm(CHILD_SECONDS)
        say(asyncio.new_event_loop().run_until_complete(in_child(db)))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    say(loop.run_until_complete(asyncio.wait_for(processes(db), CHILD_SECONDS)))
    loop.run_until_complete(db.close())
    loop.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

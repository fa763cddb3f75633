"""A program that forks as SQLAlchemy documents: ``python -m tests.servers.forking URL REPLICA``.

It prints the server processes of the parent's connections, of the child's connections after
``dispose(close=False)``, and again of the parent's. A child that hangs is ended by its alarm.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import warnings
from itertools import count

from sqlalchemy import Connection, text

from sa_sqlite_pool import ServerDatabase
from tests.programs import say

CHILD_SECONDS = 15
DEADLOCK = "DO $$ BEGIN RAISE EXCEPTION 'two' USING ERRCODE = '40P01'; END $$"


async def processes(db: ServerDatabase) -> str:
    """Return the ids of the server's processes that write and read."""
    async with db.writer_engine.connect() as writer, db.reader_engine.connect() as reader:
        found = [await one.scalar(text("SELECT pg_backend_pid()")) for one in (writer, reader)]
    return " ".join(map(str, found))


async def run_twice(db: ServerDatabase) -> None:
    """Run a function whose first run fails as in a deadlock."""
    runs = count(1)

    def fail_once(connection: Connection) -> None:
        if next(runs) == 1:
            connection.execute(text(DEADLOCK))

    await db.run_write_core(fail_once)
    assert db.statistics().retried == 1


def assert_counted_here(db: ServerDatabase) -> None:
    """Check that counters start at zero in the child, and count there."""
    found = db.statistics()
    assert found.retried == 0
    for one in found.engines:
        assert (one.statements.runs, one.statements.failed) == (1, 0), one
        assert one.transactions.reads + one.transactions.rollbacks == 1, one
        assert one.transactions.commits == 0, one
        assert (one.connections.opened, one.connections.checkouts) == (1, 1), one
        assert one.waits.at_once == 1, one


async def in_child(db: ServerDatabase) -> str:
    """Discard the parent's connections, and use new ones."""
    for engine in (db.writer_engine, db.reader_engine):
        await engine.dispose(close=False)
    found = await processes(db)
    assert_counted_here(db)
    gc.collect()
    for engine in (db.writer_engine, db.reader_engine):
        await engine.dispose()
    return found


def main(url: str, replica: str) -> None:
    """Fork between two uses of a database."""
    db = ServerDatabase(url, replicas=[replica])
    loop = asyncio.new_event_loop()
    loop.run_until_complete(db.open())
    loop.run_until_complete(run_twice(db))
    say(loop.run_until_complete(processes(db)))
    with warnings.catch_warnings():  # from 3.12 on, about threads
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

"""Processes that have a database open, for tests that inspect them from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from tests.children import heard
from tests.publishing.looking import sockets

CREATE = text("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
INSERT = text("INSERT INTO t VALUES (1)")


def opens(pipe: Connection, path: Path) -> None:
    """Open the database, report once it is published, and carry out the orders received."""
    asyncio.run(_opens(pipe, path))


async def _opens(pipe: Connection, path: Path) -> None:
    database = SQLiteDatabase(path)
    await database.open()
    await asyncio.to_thread(_until_published, path)
    pipe.send("open")
    while (word := await heard(pipe)) != "close":
        if word == "write":
            await _write(database, pipe)
        elif word == "block":
            pipe.send("blocked")
            pipe.recv()  # this blocks the event loop
        elif word == "fork":
            pipe.send(fork_a_child())
        pipe.send("done")
    await database.close()
    pipe.send("closed")


async def _write(database: SQLiteDatabase, pipe: Connection) -> None:
    async with database.write() as session:
        await session.execute(CREATE)
        await session.execute(INSERT)
        pipe.send("written")
        await heard(pipe)


def fork_a_child() -> int:
    """Fork a child that exists for a minute, and return its process ID."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, from Python 3.12 on
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        signal.pause()
        os._exit(0)
    return child


def _until_published(path: Path) -> None:
    while not any(f"-{os.getpid()}-" in name for name in sockets(path)):
        pass

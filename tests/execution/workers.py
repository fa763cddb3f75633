"""Connection threads over databases in memory, and a gate for them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from typing import TypeVar

from sa_sqlite_pool.execution.connection_thread import ConnectionThread, open_connection
from sa_sqlite_pool.execution.jobs import Job
from sa_sqlite_pool.execution.shared_thread import SharedThread

T = TypeVar("T")

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def open_worker(shared: SharedThread | None = None) -> ConnectionThread:
    connection = await open_connection(
        [":memory:"], {"isolation_level": None, "check_same_thread": False}
    )
    return ConnectionThread(connection, threadsafe=True, shared=shared)


async def outcome(job: Job[T]) -> T:
    """Await a job in a coroutine, to create a task from."""
    return await job


class Gate:
    """Blocks the thread until it is opened, and reports when the thread has arrived."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        self._open = threading.Event()

    def __call__(self, _: sqlite3.Connection) -> str:
        self._loop.call_soon_threadsafe(self.reached.set)
        if not self._open.wait(10):
            raise TimeoutError("nobody opened the gate")
        return "through"

    def open(self) -> None:
        self._open.set()


async def give_up(
    worker: ConnectionThread, *, keep: bool, cursors: Sequence[sqlite3.Cursor] = ()
) -> ConnectionThread | None:
    """Give up the connection, and wait for the report that this is done."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[ConnectionThread | None] = loop.create_future()

    def done(successor: ConnectionThread | None) -> None:
        loop.call_soon_threadsafe(answer.set_result, successor)

    worker.give_up("reason", keep=keep, done=done, cursors=lambda: cursors)
    assert worker.closed
    return await answer

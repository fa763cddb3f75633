"""One SQLite connection, and the hops to the thread where it is used.

Its own thread is aiosqlite's, so that the connection which users get as ``driver_connection`` is
an ordinary ``aiosqlite.Connection``. Jobs are put on its queue without a future: a job reports
for itself, and so may be cancelled, and may find its loop closed, without ending the thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar, final

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL

from .jobs import Job
from .lane import Lane
from .mailbox import Mailbox, mailbox

T = TypeVar("T")


@final
class Worker:
    """One ``sqlite3`` connection, used by one job at a time.

    ``hops`` counts the ways from the loop to the thread and back; tests and statistics read it.
    """

    __slots__ = ("_lane", "_last_job", "_mailbox", "_threadsafe", "aiosqlite_connection", "hops")

    def __init__(
        self, connection: aiosqlite.Connection, *, threadsafe: bool, lane: Lane | None = None
    ) -> None:
        self.aiosqlite_connection = connection
        self._lane = lane if threadsafe else None
        self.hops = 0
        self._mailbox: Mailbox | None = None
        self._last_job: Job[Any] | None = None
        self._threadsafe = threadsafe

    @property
    def connection(self) -> sqlite3.Connection:
        """The ``sqlite3`` connection; ``sqlite3.OperationalError`` once it is closed."""
        connection = self.aiosqlite_connection._connection
        if connection is None:
            # SQLAlchemy's dialect takes these words for a disconnect and opens another.
            raise sqlite3.OperationalError("no active connection")
        return connection

    @property
    def closed(self) -> bool:
        return self.aiosqlite_connection._connection is None

    @property
    def in_transaction(self) -> bool:
        """SQLite's own word; asking takes no hop."""
        connection = self.aiosqlite_connection._connection
        return connection is not None and connection.in_transaction

    @property
    def may_run_inline(self) -> bool:
        """Whether the thread is idle, so that the loop may use the connection for a moment."""
        return (
            self._threadsafe
            and (self._last_job is None or self._last_job.let_go)
            and self.aiosqlite_connection._tx.empty()
        )

    def run(
        self,
        function: Callable[[sqlite3.Connection], T],
        *,
        text: str | None = None,
        interruptible: bool = True,
    ) -> Job[T]:
        """``await run(function)``: call it with the connection, in a thread: one hop.

        ``text`` says that it is a statement, which runs in the engine's lane unless that text is
        known to be slow; everything else runs in the connection's own thread.

        A cancellation interrupts the running statement (SQLite may roll the transaction back,
        https://www.sqlite.org/c3ref/interrupt.html) and is raised when the thread is free again;
        with ``interruptible=False`` the function runs to its end first.
        """
        loop = asyncio.get_running_loop()
        if self._mailbox is None or not self._mailbox.belongs_to(loop):
            self._mailbox = mailbox(loop)
        job = Job(function, self.connection, loop, self._mailbox, interruptible=interruptible)
        self.hops += 1
        self._last_job = job
        if text is not None and self._lane is not None and self._lane.takes(text):
            self._lane.submit(job, text, loop)
        else:
            self.aiosqlite_connection._tx.put_nowait((None, job))
        return job

    def interrupt(self) -> None:
        """Stop the statement that runs now, if one does."""
        connection = self.aiosqlite_connection._connection
        if connection is not None:
            connection.interrupt()

    async def close(self) -> None:
        """Close the connection and end the thread, also if the caller is cancelled meanwhile."""
        if self.closed:
            return
        try:
            await self.run(sqlite3.Connection.close, interruptible=False)
        finally:
            self._stop()

    def abandon(self, when_closed: Callable[[], None]) -> None:
        """Close the connection and end the thread without waiting for it.

        For places without a loop, such as the garbage collector. ``when_closed`` is called in the
        thread, after the connection is closed and its transaction rolled back.
        """
        if self.closed:
            when_closed()
            return
        connection, last_job = self.connection, self._last_job

        def close() -> None:
            try:
                if last_job is not None:
                    last_job.wait_in_thread()
                connection.close()
            finally:
                when_closed()

        connection.interrupt()
        self.aiosqlite_connection._tx.put_nowait((None, close))
        self._stop()

    def _stop(self) -> None:
        self.aiosqlite_connection._connection = None
        self.aiosqlite_connection._running = False
        self.aiosqlite_connection._tx.put_nowait((None, lambda: _STOP_RUNNING_SENTINEL))

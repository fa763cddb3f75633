"""The thread of one SQLite connection, and the hops that go there.

The thread is aiosqlite's own, so that the connection which users get as ``driver_connection`` is
an ordinary ``aiosqlite.Connection``. Jobs are put on its queue without a future: a job reports
for itself, and so may be cancelled, and may find its loop closed, without ending the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import sqlite3
import threading
from collections.abc import Callable
from typing import Generic, TypeVar, final

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL

T = TypeVar("T")


class _Stage(enum.Enum):
    QUEUED = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()
    DROPPED = enum.auto()


@final
class Job(Generic[T]):
    """One function to run in the thread, and its outcome."""

    __slots__ = ("_error", "_function", "_loop", "_mutex", "_reported", "_result", "_stage")

    def __init__(self, function: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._loop = loop
        self._mutex = threading.Lock()
        self._stage = _Stage.QUEUED
        self._reported: asyncio.Future[None] = loop.create_future()
        self._result: T
        self._error: BaseException | None = None

    @property
    def finished(self) -> bool:
        return self._stage is _Stage.FINISHED

    def __call__(self) -> None:
        """Run, in the thread."""
        with self._mutex:
            if self._stage is _Stage.DROPPED:
                return
            self._stage = _Stage.RUNNING
        try:
            self._result = self._function()
        except BaseException as error:  # raised again where it is awaited
            self._error = error
        with self._mutex:
            self._stage = _Stage.FINISHED
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._report)

    def _report(self) -> None:
        if not self._reported.done():
            self._reported.set_result(None)

    async def outcome(self, interrupt: Callable[[], None] | None) -> T:
        """The function's result. A cancellation is raised only when the thread is done with it.

        A job that has not begun is dropped; a running one is stopped by ``interrupt``, or runs to
        its end where that is None.
        """
        try:
            await self._reported
        except asyncio.CancelledError:
            await self._settle(interrupt)
            raise
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            self._error = None  # break the cycle: error, traceback, this frame, job, error

    async def _settle(self, interrupt: Callable[[], None] | None) -> None:
        # The mutex makes sure that an interrupt hits this job's statement and never the next one.
        with self._mutex:
            if interrupt is not None and self._stage is _Stage.QUEUED:
                self._stage = _Stage.DROPPED
                return
            if interrupt is not None and self._stage is _Stage.RUNNING:
                interrupt()
            if self._stage is _Stage.FINISHED:
                return
            self._reported = self._loop.create_future()
        await _in_spite_of_cancellation(self)


async def _in_spite_of_cancellation(job: Job[T]) -> None:
    while not job.finished:
        waiting = job._reported
        try:
            await waiting
        except asyncio.CancelledError:
            job._reported = job._loop.create_future()


@final
class Worker:
    """One ``sqlite3`` connection in aiosqlite's thread.

    ``hops`` counts the ways from the loop to the thread and back; tests and statistics read it.
    """

    __slots__ = ("_jobs", "_threadsafe", "aiosqlite_connection", "hops")

    def __init__(self, connection: aiosqlite.Connection, *, threadsafe: bool) -> None:
        self.aiosqlite_connection = connection
        self.hops = 0
        self._jobs = 0
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
        return self._threadsafe and self._jobs == 0 and self.aiosqlite_connection._tx.empty()

    async def run(
        self, function: Callable[[sqlite3.Connection], T], *, interruptible: bool = True
    ) -> T:
        """Call ``function`` with the connection, in the thread: one hop.

        A cancellation interrupts the running statement (SQLite may roll the transaction back,
        https://www.sqlite.org/c3ref/interrupt.html) and is raised when the thread is free again;
        with ``interruptible=False`` the function runs to its end first.
        """
        connection = self.connection
        loop = asyncio.get_running_loop()
        job: Job[T] = Job(lambda: function(connection), loop)
        self.hops += 1
        self._jobs += 1
        try:
            self.aiosqlite_connection._tx.put_nowait((None, job))
            return await job.outcome(connection.interrupt if interruptible else None)
        finally:
            self._jobs -= 1

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
        connection = self.connection

        def close() -> None:
            try:
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

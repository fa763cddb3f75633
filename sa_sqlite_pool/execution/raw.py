"""aiosqlite's connections: how one is opened, and how its thread ends.

After that, the application's calls return at once. aiosqlite's ``close()`` and ``stop()`` put their
work into the queue of the thread and await a future (``aiosqlite/core.py``, 0.22). The thread ends
at the first item that tells it to; any later item would be awaited for ever:

    Application: await raw.close()          | Package: the connection is given up
                                            | queue: give up
    queue: give up, close                   |
                                            | thread: closes it; queue: close, stop
    is told that it is closed;              |
    queue: stop, close_and_stop             |
                                            | thread: stop, and ends
    waits for close_and_stop                |

So the queue is emptied before its last item, and replaced with one that needs no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, final

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL

from ..compat.main_greenlets import keep_main_greenlet
from ..system.loop_state import call_unless_closed
from .jobs import Job

Then = Callable[[sqlite3.Connection], None]
Item = tuple["asyncio.Future[Any] | None", Callable[[], Any]]


def connection_class() -> type[sqlite3.Connection]:
    """Return the class of aiosqlite's connections, whatever module it uses instead of sqlite3."""
    found: type[sqlite3.Connection] = aiosqlite.core.sqlite3.Connection  # type: ignore[attr-defined]
    return found


async def open_connection(
    arguments: Sequence[Any], parameters: Mapping[str, Any], then: Then | None = None
) -> aiosqlite.Connection:
    """Open a connection as ``aiosqlite.connect()`` does; a cancellation leaves nothing behind.

    With aiosqlite's own function, the thread would still open the file, and report to a loop that
    may be closed. Here, the cancellation is raised once the connection is closed again; if it still
    runs a long ``then``, its thread closes it when that ends.

    ``then`` is called with the open connection in the same hop.
    """
    return await open_as(aiosqlite.connect(*arguments, **parameters), then)


async def open_as(
    connection: aiosqlite.Connection, then: Then | None = None
) -> aiosqlite.Connection:
    """Open ``connection`` in its thread, in the same way."""
    connection._thread.daemon = True

    def open_file(_: None) -> None:
        keep_main_greenlet()
        opened = connection._connection = connection._connector()
        if then is not None:
            job.may_interrupt(opened)
            then(opened)

    job = Job(open_file, None, interruptible=then is not None)
    connection._thread.start()
    connection._tx.put_nowait((None, job))
    try:
        await job
    except BaseException:
        if job.over:
            _close_unused(connection)
        else:
            connection._tx.put_nowait((None, lambda: _close_unused(connection)))
        raise
    return connection


def _close_unused(connection: aiosqlite.Connection) -> None:
    if connection._connection is not None:
        connection._connection.close()
        connection._connection = None
    end_queue(connection)


def closed_connection() -> aiosqlite.Connection:
    """Return a connection that was never opened: it can be closed, all else is an error."""
    connection = aiosqlite.Connection(connection_class(), iter_chunk_size=1)
    mark_closed(connection)
    return connection


def mark_closed(connection: aiosqlite.Connection) -> None:
    """Mark SQLite's connection as closed, and end its thread. Any thread may call this."""
    connection._connection = None
    connection._running = False
    end_queue(connection)


def leave_to_parent(connection: aiosqlite.Connection) -> bool:
    """Never touch the parent's connection in a child process: not even its memory is freed.

    Return whether it was open.
    """
    inherited = connection._connection
    if inherited is None:
        return False
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    connection._connection = None
    connection._running = False
    connection._tx = EndedQueue()  # type: ignore[assignment]
    return True


def end_queue(connection: aiosqlite.Connection) -> None:
    """Run the items in a closed connection's queue, and later ones at once; end its thread.

    Any thread may call this.
    """
    # A thread that has looked up the queue puts its item there before another thread runs: the
    # interpreter switches threads after calls, not before them.
    queue, connection._tx = connection._tx, EndedQueue()  # type: ignore[assignment]
    with contextlib.suppress(Empty):
        while True:
            _do(*queue.get_nowait())
    queue.put_nowait((None, lambda: _STOP_RUNNING_SENTINEL))


@final
class WorkQueue:
    """The queue of a connection's thread, which knows whether it contains the application's work.

    aiosqlite adds that with :meth:`put_nowait`; ``unfinished`` has one element for each such item
    that is queued or running. This package adds its own jobs with :meth:`put_job`, and tracks
    them itself.
    """

    __slots__ = ("_queue", "unfinished")

    def __init__(self, queue: SimpleQueue[Item]) -> None:
        self._queue = queue
        self.unfinished: deque[None] = deque()

    def put_nowait(self, item: Item) -> None:
        future, function = item
        self.unfinished.append(None)
        self._queue.put_nowait((future, _Work(function, self.unfinished)))

    def put_job(self, function: Callable[[], object]) -> None:
        """Make the thread call ``function()``, whose outcome is discarded."""
        self._queue.put_nowait((None, function))

    def get_nowait(self) -> Item:
        return self._queue.get_nowait()


@final
class _Work:
    """Work of the application, which runs once.

    aiosqlite's thread keeps it until the next. The function may refer to the connection, as in
    ``execute_insert()``; the connection would then never be freed, and so never be closed.
    """

    __slots__ = ("_function", "_unfinished")

    def __init__(self, function: Callable[[], Any], unfinished: deque[None]) -> None:
        self._function: Callable[[], Any] | None = function
        self._unfinished = unfinished

    def __call__(self) -> Any:
        function, self._function = self._function, None
        assert function is not None
        try:
            return function()
        finally:
            self._unfinished.pop()


def queue_of(connection: aiosqlite.Connection) -> WorkQueue | EndedQueue:
    """Return the queue of an open connection's thread, which replaces aiosqlite's own queue."""
    found: Any = connection._tx
    if isinstance(found, SimpleQueue):
        found = connection._tx = WorkQueue(found)  # type: ignore[assignment]
    queue: WorkQueue | EndedQueue = found
    return queue


@final
class EndedQueue:
    """The queue of a thread that has ended."""

    __slots__ = ()

    unfinished = ()

    def put_nowait(self, item: Item) -> None:
        """Run ``item`` at once, in this thread: on a closed connection, nothing takes any time."""
        _do(*item)

    def put_job(self, function: Callable[[], object]) -> None:
        _do(None, function)

    def get_nowait(self) -> Item:
        raise Empty


def _do(future: asyncio.Future[Any] | None, function: Callable[[], Any]) -> None:
    """Run an item as aiosqlite's ``_connection_worker_thread()`` does."""
    result, error = None, None
    try:
        result = function()
    except BaseException as raised:
        error = raised
    if future is not None:
        call_unless_closed(future.get_loop(), _answer, future, result, error)


def _answer(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():  # it was cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)

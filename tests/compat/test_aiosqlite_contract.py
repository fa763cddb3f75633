"""What the package relies on inside aiosqlite: one test for each row of ``docs/compat.md``.

A test that fails with a new version of aiosqlite names the module of this package that breaks.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

import aiosqlite
import pytest
from aiosqlite.core import _STOP_RUNNING_SENTINEL


@pytest.fixture
def connection(path: Path) -> Iterator[aiosqlite.Connection]:
    """Return a connection that is not opened yet; its thread ends with the test."""
    connector = partial(sqlite3.connect, path, check_same_thread=False)
    connection = aiosqlite.Connection(connector, iter_chunk_size=64)
    yield connection
    if connection._connection is not None:
        connection._connection.close()
        connection._connection = None
    connection._tx.put_nowait((None, lambda: _STOP_RUNNING_SENTINEL))
    if connection._thread.is_alive():
        connection._thread.join(30)


def opened(connection: aiosqlite.Connection) -> aiosqlite.Connection:
    """Open it as the package does: its thread runs, and the raw connection is an attribute."""
    connection._thread.start()
    connection._connection = connection._connector()
    return connection


def in_thread(connection: aiosqlite.Connection, function: Any) -> Any:
    """Run ``function()`` in the connection's thread, as an item of its queue; return its result."""
    results: list[Any] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(function())
        finally:
            done.set()

    connection._tx.put_nowait((None, run))
    assert done.wait(30)
    return results[0] if results else None


def test_a_new_connection(connection: aiosqlite.Connection) -> None:
    """``Connection(connector, iter_chunk_size)`` opens nothing and starts no thread.

    ``execution/raw.py`` starts ``_thread`` as a daemon and calls ``_connector`` in it.
    """
    assert list(inspect.signature(aiosqlite.Connection).parameters)[:2] == [
        "connector",
        "iter_chunk_size",
    ]
    assert isinstance(connection._thread, threading.Thread)
    assert connection._thread.ident is None
    connection._thread.daemon = True
    assert connection._connection is None
    assert connection._running is True
    assert connection._tx.empty()
    with closing(connection._connector()) as raw:
        assert isinstance(raw, sqlite3.Connection)


def test_connect_is_lazy(path: Path) -> None:
    """``aiosqlite.connect()`` returns such a connection, for the same arguments.

    ``execution/raw.py`` opens it in its own way; ``sqlite3`` gets options such as ``factory``.
    """

    class Own(sqlite3.Connection):
        """A class such as those that ``sqlite/shared_hooks.py`` creates."""

    connection = aiosqlite.connect(path, factory=Own, uri=False, check_same_thread=False)
    assert type(connection) is aiosqlite.Connection
    assert connection._thread.ident is None
    assert not path.exists()
    with closing(connection._connector()) as raw:
        assert type(raw) is Own


def test_the_module_it_connects_with() -> None:
    """``aiosqlite.core.sqlite3`` is the module of connections, even if it was replaced.

    ``execution/raw.py``: ``connection_class()`` derives the package's classes from it.
    """
    assert aiosqlite.core.sqlite3 is sqlite3  # type: ignore[attr-defined]
    assert "sqlite3.connect" in inspect.getsource(aiosqlite.connect)


def test_items_of_the_queue_run_in_order(connection: aiosqlite.Connection) -> None:
    """``_tx.put_nowait((None, function))`` runs the functions in ``_thread``, one after the other.

    ``execution/connection_thread.py`` sends its jobs in this way. Without a future, no result is
    reported, and an error does not end the thread.
    """
    opened(connection)
    ran: list[object] = []

    def fail() -> None:
        ran.append("failed")
        raise ValueError("of nobody")

    connection._tx.put_nowait((None, fail))
    connection._tx.put_nowait((None, partial(ran.append, "next")))
    assert in_thread(connection, threading.current_thread) is connection._thread
    assert ran == ["failed", "next"]
    assert connection._tx.empty()


def test_an_item_may_be_falsy_and_return_anything(connection: aiosqlite.Connection) -> None:
    """Only ``_STOP_RUNNING_SENTINEL`` ends the thread, compared by identity.

    ``execution/raw.py``: ``end_queue()`` ends a thread with an item that returns it.
    """
    opened(connection)
    for value in (None, False, 0, "", object()):
        connection._tx.put_nowait((None, partial(next, iter([value]))))
    assert in_thread(connection, lambda: "alive") == "alive"
    connection._tx.put_nowait((None, lambda: _STOP_RUNNING_SENTINEL))
    connection._thread.join(30)
    assert not connection._thread.is_alive()


def test_the_thread_keeps_its_queue(connection: aiosqlite.Connection) -> None:
    """A queue that replaces ``_tx`` is used by the connection, but not by its thread.

    ``execution/raw.py``: ``end_queue()`` empties the old queue, whose last item ends the thread.
    """
    opened(connection)
    old = connection._tx
    asked: list[Any] = []

    class Other:
        def put_nowait(self, item: Any) -> None:
            asked.append(item)

    connection._tx = Other()  # type: ignore[assignment]
    done = threading.Event()
    old.put_nowait((None, done.set))
    assert done.wait(30)
    connection._tx.put_nowait((None, print))
    assert asked == [(None, print)]
    connection._tx = old
    with pytest.raises(Empty):  # the class of queue that execution/raw.py empties
        old.get_nowait()


async def test_what_users_ask_goes_through_the_queue(connection: aiosqlite.Connection) -> None:
    """``execute()``, ``close()`` and ``stop()`` put ``(future, function)`` into ``_tx``.

    ``execution/raw.py``: ``EndedQueue`` answers them at once after the thread has ended, and
    ``execution/connection_thread.py`` treats everything in ``_tx`` as work for the thread.
    """
    opened(connection)
    items: list[Any] = []
    queue = connection._tx

    class Noted:
        def put_nowait(self, item: Any) -> None:
            items.append(item)
            queue.put_nowait(item)

    connection._tx = Noted()  # type: ignore[assignment]
    cursor = await connection.execute("SELECT 1")
    assert list(await cursor.fetchall()) == [(1,)]
    await connection.close()
    assert len(items) >= 4
    assert all(isinstance(future, asyncio.Future) and callable(work) for future, work in items)
    assert items[-1][1]() is _STOP_RUNNING_SENTINEL
    connection._tx = queue


async def test_a_stopped_connection_refuses(connection: aiosqlite.Connection) -> None:
    """With ``_running = False`` or ``_connection = None``, users find the connection closed.

    ``execution/connection_thread.py`` gives up connections in this way. SQLAlchemy's dialect
    recognizes the messages of the errors, and opens another connection.
    """
    raw = opened(connection)._connection
    for running, inside in ((False, raw), (True, None)):
        connection._running, connection._connection = running, inside
        with pytest.raises(ValueError, match=r"(?i)connection closed|no active connection"):
            await connection.execute("SELECT 1")
    connection._running, connection._connection = True, raw
    cursor = await connection.execute("SELECT 1")
    assert list(await cursor.fetchall()) == [(1,)]


async def test_stop_and_close_leave_marks(path: Path) -> None:
    """``stop()`` sets ``_running`` to False at once, and ``close()`` sets ``_connection`` to None.

    ``execution/connection_thread.py``: ``closed_by_application`` checks nothing else.
    """
    stopped, closed = await aiosqlite.connect(path), await aiosqlite.connect(path)
    future = stopped.stop()
    assert stopped._running is False
    assert future is not None
    await future
    await closed.close()
    assert closed._connection is None
    for each in (stopped, closed):
        each._thread.join(30)
        assert not each._thread.is_alive()


async def test_closing_a_closed_connection(connection: aiosqlite.Connection) -> None:
    """``close()`` does nothing if ``_connection`` is None.

    ``execution/connection_thread.py`` sets that when the package has closed the connection, which
    users may close again.
    """
    raw = opened(connection)._connection
    assert raw is not None
    raw.close()
    connection._connection = None
    await connection.close()
    assert connection._tx.empty()


async def test_the_finalizer_stops_the_thread(path: Path) -> None:
    """A connection that is freed while ``_connection`` is set warns, and ends its thread.

    ``execution/connection_thread.py`` keeps open connections in a set, because their threads still
    have work to do.
    """
    connection = await aiosqlite.connect(path)
    thread = connection._thread
    raw = connection._connection
    with pytest.warns(ResourceWarning, match="deleted before being closed"):
        del connection
    thread.join(30)
    assert not thread.is_alive()
    with suppress(sqlite3.ProgrammingError):
        assert raw is not None
        raw.close()


async def test_the_finalizer_leaves_others_alone(connection: aiosqlite.Connection) -> None:
    """With ``_connection = None``, the finalizer neither warns nor stops anything.

    ``execution/connection_thread.py`` sets that in a child process, whose parent owns the
    connection.
    """
    assert connection._connection is None
    finalize: Any = connection.__del__
    finalize()
    assert connection._running is True
    assert connection._tx.empty()

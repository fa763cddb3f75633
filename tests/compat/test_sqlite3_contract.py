"""What the package relies on in ``sqlite3``, SQLite and CPython: rows of ``docs/compat.md``.

Most of it is undocumented, or documented for SQLite only, and not for Python's module.
"""

from __future__ import annotations

import ctypes
import gc
import sqlite3
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

LEGACY_TRANSACTION_CONTROL = -1
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection as the package opens one."""
    with closing(
        sqlite3.Connection(
            f"file:{path}", uri=True, isolation_level=None, timeout=0, check_same_thread=False
        )
    ) as connection:
        yield connection


def test_connections_are_made_by_their_class(connection: sqlite3.Connection) -> None:
    """``sqlite3.Connection(…)`` accepts the arguments of ``connect()``, and a URI.

    ``execution/connection_thread.py`` and ``files/images.py`` open their own in this way, which
    tracers that replace ``connect()`` do not notice.
    """
    assert connection.execute("SELECT 1").fetchone() == (1,)
    assert connection.isolation_level is None


def test_no_transaction_is_begun_by_the_module(connection: sqlite3.Connection) -> None:
    """With ``isolation_level = None`` no statement begins one; a later setting applies at once.

    ``sqlite/isolation.py``: the adapter sends BEGIN. ``driver/adapter.py`` restores the level while
    the application has the raw connection.
    """
    connection.execute("CREATE TABLE t (i)")
    connection.execute("INSERT INTO t VALUES (1)")
    assert not connection.in_transaction
    raw: Any = connection  # "" is the default, which the types lack
    raw.isolation_level = ""
    connection.execute("INSERT INTO t VALUES (2)")
    assert connection.in_transaction
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no autocommit")
def test_the_other_switch_is_off(connection: sqlite3.Connection) -> None:
    """``autocommit`` is ``LEGACY_TRANSACTION_CONTROL``, -1, and can be set back to that.

    ``sqlite/isolation.py``: otherwise, ``isolation_level`` has no effect. Before Python 3.12, there
    is no such attribute to switch off.
    """
    raw: Any = connection
    assert raw.autocommit == LEGACY_TRANSACTION_CONTROL
    raw.autocommit = True
    raw.autocommit = LEGACY_TRANSACTION_CONTROL
    raw.isolation_level = ""
    raw.execute("CREATE TABLE t (i)")
    raw.execute("INSERT INTO t VALUES (1)")
    assert raw.in_transaction
    raw.rollback()


def test_state_is_told_in_any_thread(connection: sqlite3.Connection) -> None:
    """Any thread may read ``in_transaction`` while no other thread uses the connection.

    ``execution/running.py`` reads it on the event loop if no statement runs in a thread. While one
    does, SQLite waits for it from 3.53 on, holding the interpreter lock; earlier, it did not.
    """
    thread = threading.Thread(target=connection.execute, args=("BEGIN",))
    thread.start()
    thread.join(30)
    assert connection.in_transaction


def test_what_was_stopped_says_so(connection: sqlite3.Connection) -> None:
    """A stopped statement raises OperationalError with the single word "interrupted".

    ``execution/jobs.py`` and ``driver/executor.py`` thus distinguish a time-out from an error, even
    on Python 3.10, which has no ``sqlite_errorcode``.
    """
    connection.set_progress_handler(lambda: True, 1000)
    with pytest.raises(sqlite3.OperationalError) as stopped:
        connection.execute(ENDLESS)
    assert str(stopped.value) == "interrupted"


def test_an_interrupt_comes_from_any_thread(connection: sqlite3.Connection) -> None:
    """``interrupt()`` stops what runs in another thread, and otherwise has no effect.

    ``execution/jobs.py``: cancellations and time-outs.
    """
    connection.interrupt()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    began, stopped = threading.Event(), threading.Event()
    connection.set_progress_handler(began.set, 1000)

    def run() -> None:
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            connection.execute(ENDLESS)
        stopped.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert began.wait(30)
    connection.interrupt()
    assert stopped.wait(30)
    thread.join()


def test_a_new_authorizer_is_asked_about_cached_statements(connection: sqlite3.Connection) -> None:
    """``set_authorizer()`` expires compiled statements: the statement cache does not bypass it.

    ``sqlite/shared_hooks.py`` and ``sqlite/watch.py``: "sqlite3_set_authorizer() … expires all
    prepared statements" is in SQLite's source, and Python's cache returns such statements again.
    """
    asked: list[int] = []

    def note(action: int, *_: Any) -> int:
        asked.append(action)
        return sqlite3.SQLITE_OK

    for sql in ("BEGIN", "COMMIT"):
        connection.execute(sql)
    connection.set_authorizer(note)
    connection.execute("BEGIN")
    connection.execute("COMMIT")
    assert asked.count(sqlite3.SQLITE_TRANSACTION) == 2
    asked.clear()
    connection.set_authorizer(note)
    connection.execute("BEGIN")
    connection.execute("COMMIT")
    assert asked.count(sqlite3.SQLITE_TRANSACTION) == 2


def test_hooks_of_a_subclass(path: Path) -> None:
    """Hooks can be overridden in a subclass, which calls the base's methods.

    ``sqlite/shared_hooks.py``: the application and the package share one authorizer and one
    progress handler.
    """
    calls: list[str] = []

    class Own(sqlite3.Connection):
        def set_authorizer(self, authorizer_callback: Any) -> None:
            calls.append("authorizer")
            super().set_authorizer(authorizer_callback)

        def set_progress_handler(self, progress_handler: Any, n: int) -> None:
            calls.append("progress")
            sqlite3.Connection.set_progress_handler(self, progress_handler, n)

    with closing(sqlite3.connect(path, factory=Own)) as connection:
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_OK)
        connection.set_progress_handler(lambda: False, 1)
        connection.execute("SELECT 1").fetchall()
    assert calls == ["authorizer", "progress"]


def test_an_open_cursor_keeps_its_snapshot(path: Path, connection: sqlite3.Connection) -> None:
    """A cursor that is not read to its end keeps a read open; ``close()`` in any thread ends it.

    ``driver/cursors.py``: streams are registered where they are opened, and closed elsewhere.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (i)")
    connection.executemany("INSERT INTO t VALUES (?)", [(i,) for i in range(10)])
    cursor = connection.cursor()
    cursor.execute("SELECT i FROM t")
    cursor.fetchone()
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("INSERT INTO t VALUES (11)")
        assert other.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 1
        thread = threading.Thread(target=cursor.close)
        thread.start()
        thread.join()
        assert other.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0


def test_functions_and_collations_can_be_listed(connection: sqlite3.Connection) -> None:
    """``PRAGMA function_list`` returns name and ``builtin``, ``collation_list`` the names.

    ``sqlite/inspection.py``: before SQLite 3.30 they return nothing, and statements run in threads.
    """
    connection.create_function("twice", 1, lambda x: 2 * x)
    connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    functions = connection.execute("PRAGMA function_list").fetchall()
    assert ("twice", 0) in {row[:2] for row in functions}
    assert ("abs", 1) in {row[:2] for row in functions}
    collations = connection.execute("PRAGMA collation_list").fetchall()
    # Python 3.10 converts the name to capital letters.
    assert "backwards" in {row[1].lower() for row in collations}


def test_a_counted_reference_keeps_it_for_ever(path: Path) -> None:
    """``Py_IncRef()`` prevents a connection from being freed, and therefore its file from closing.

    ``execution/raw.py``: connections of the parent, in a child process. PyPy has no such function.
    """

    class Own(sqlite3.Connection):
        """Supports weak references."""

    connection = sqlite3.connect(path, factory=Own)
    reference = weakref.ref(connection)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    del connection
    gc.collect()
    kept = reference()
    assert kept is not None
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(kept))
    kept.close()


# -- the interpreter -------------------------------------------------------------------------------


def test_a_frame_tells_its_line_later() -> None:
    """``f_code`` and ``f_lasti`` suffice to find the line later, when it is needed.

    ``turn/whereabouts.py``: ``Caller`` keeps two numbers for each wait, and no frame. If a line
    cannot be found, the function's line is used.
    """
    frame = sys._getframe()
    instruction, line = frame.f_lasti, frame.f_lineno
    lines = frame.f_code.co_lines()
    assert [row for first, last, row in lines if first <= instruction < last] == [line]


def test_frames_lead_to_the_caller() -> None:
    """``sys._getframe(1)`` is the caller's frame, and its ``f_back`` that of the caller's caller.

    ``turn/whereabouts.py`` looks for the first line outside all libraries.
    """

    def inside() -> types.FrameType:
        return sys._getframe(1)

    frame = inside()
    assert frame is sys._getframe()
    assert frame.f_back is not None


def test_frames_of_other_threads() -> None:
    """``sys._current_frames()`` has the innermost frame of each thread, which leads to the others.

    ``turn/whereabouts.py`` names the line of a task that blocks its event loop, as seen from
    another thread: while the task runs, its coroutine does not lead there.
    """
    inside, leave = threading.Event(), threading.Event()

    def block() -> None:
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=block)
    thread.start()
    inside.wait(30)
    frame: types.FrameType | None = sys._current_frames()[thread.ident or 0]
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    leave.set()
    thread.join()
    assert "block" in names


def test_a_function_can_have_other_names() -> None:
    """``code.replace(co_names=...)`` creates the same function with other global names.

    ``compat/sqlalchemy_asyncio.py``: methods of SQLAlchemy with another ``greenlet_spawn``.
    Functions that do not list it are left alone.
    """

    async def method(self: object, *, value: int = 1) -> tuple[object, int]:
        return looked_up(self), value  # type: ignore[name-defined]  # noqa: F821

    code = method.__code__
    assert "looked_up" in code.co_names
    names = tuple("any name" if name == "looked_up" else name for name in code.co_names)
    copy = types.FunctionType(
        code.replace(co_names=names), {"any name": id}, "copy", method.__defaults__
    )
    copy.__kwdefaults__ = method.__kwdefaults__
    one = object()
    with pytest.raises(StopIteration) as ended:
        copy(one).send(None)
    assert ended.value.value == (id(one), 1)


def test_a_child_that_multiprocessing_forks_has_finalizers() -> None:
    """Without ``atexit``, it drops its parent's, and calls the ones registered for after a fork.

    ``system/exits.py`` closes connections at rest there, after all other finalizers.
    """
    said = subprocess.run([sys.executable, "-c", _FORKS], capture_output=True, check=True).stdout
    assert said.split() == [b"first", b"last"]


_FORKS = """
import multiprocessing, multiprocessing.util as util, os, sys

class Thing:
    def register(self):
        util.Finalize(None, os.write, args=(1, b"last\\n"), exitpriority=-1_000_000)
        util.Finalize(None, os.write, args=(1, b"first\\n"), exitpriority=-1)

if hasattr(os, "fork"):
    thing = Thing()
    util.register_after_fork(thing, Thing.register)
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
else:
    print("first", "last")
"""

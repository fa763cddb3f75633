"""Closures: functions run in SQLite's thread, in one hop each, with synchronous SQLAlchemy.

Each statement of an ``AsyncSession`` may take a hop to the connection's thread and back. A
function passed to ``run_read()`` or ``run_write()`` takes a single hop.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar, final

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from ..errors import ClosureError
from ..functions import assert_plain, checked
from .read_group import Reads
from .thread_connection import ThreadConnection
from .write_group import Writes

P = ParamSpec("P")
T = TypeVar("T")

_Body = Callable[[ThreadConnection], T]
_Runner = Callable[[ThreadConnection, Engine, Callable[[Any], T]], T]


def _begun(engine: Engine, here: ThreadConnection) -> Connection:
    """Return a connection to an open transaction, as ``engine.connect()`` would create it."""
    connection = Connection(engine, here)  # type: ignore[arg-type]
    if connection.in_transaction():  # an `engine_connect` listener has executed a statement
        connection.commit()
    return connection


def _with_connection(here: ThreadConnection, engine: Engine, call: Callable[[Connection], T]) -> T:
    with _begun(engine, here) as connection, connection.begin():
        return here.call(call, connection)


def _reading_connection(
    here: ThreadConnection, engine: Engine, call: Callable[[Connection], T]
) -> T:
    # There is nothing to commit, so it ends as ``with engine.connect()`` does.
    with _begun(engine, here) as connection:
        connection.begin()
        return here.call(call, connection)


@final
class Closures:
    """Runs closures on the engines of one database.

    ``session_class`` is the session class for ``run_read()`` and ``run_write()``; it is called as
    ``session_class(connection, **options)``, with options of ``Session``.
    """

    def __init__(
        self,
        writes: Writes,
        reader: AsyncEngine,
        label: str,
        session_class: type[Session] = Session,
    ) -> None:
        self._writes = writes
        self._label = label
        self._session_class = session_class
        self._reads = Reads(reader, label, writes.threads)

    def assert_outside(self) -> None:
        """Raise ClosureError inside a closure, which would wait for its own end."""
        if threading.get_ident() in self._writes.threads:
            raise ClosureError(
                f"{self._label} was used inside a function passed to run_write() or run_read(): it "
                "would wait for itself; use the session or connection that the function received"
            )

    def refuse(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in all calls that have not begun yet."""
        self._writes.send_away(error)
        self._reads.send_away(error)

    def with_session(
        self, here: ThreadConnection, engine: Engine, call: Callable[[Session], T]
    ) -> T:
        # The transaction is begun for the session, not by it: a `begin` listener must not run in
        # the middle of the function, where BEGIN is refused. The session controls the transaction,
        # so that its after_commit event is fired after the COMMIT.
        with _begun(engine, here) as connection:
            transaction = connection.begin()
            with self._session(connection) as session, session.begin():
                result = here.call(call, session)
            if transaction.is_active:  # the session did not use it, or bypassed it
                transaction.commit()
        return result

    def reading_session(
        self, here: ThreadConnection, engine: Engine, call: Callable[[Session], T]
    ) -> T:
        # Reads as ``with Session(engine)`` does. A flush of changes is refused where it occurs.
        with _begun(engine, here) as connection:
            connection.begin()
            with self._session(connection) as session:
                transaction = session.begin()
                result = here.call(call, session)
                if not session._is_clean():
                    transaction.commit()
                return result

    def _session(self, connection: Connection) -> Session:
        return self._session_class(
            connection,
            expire_on_commit=False,
            close_resets_only=False,
            join_transaction_mode="control_fully",
        )

    def write(
        self, run: _Runner[T], call: Callable[[Any], T], fn: object
    ) -> Coroutine[Any, Any, T]:
        engine = self._writes.engine.sync_engine
        call = checked(call, fn)

        def body(here: ThreadConnection) -> T:
            result = run(here, engine, call)
            here.assert_committed()
            return result

        return self._writes.run(fn, body)

    def read(self, run: _Runner[T], call: Callable[[Any], T], fn: object) -> Coroutine[Any, Any, T]:
        engine = self._reads.engine.sync_engine
        call = checked(call, fn)
        return self._reads.run(fn, lambda here: run(here, engine, call))


class RunsClosures(ABC):
    """``run_read()`` and ``run_write()`` of the facade."""

    # These coroutines yield to their event loop alone, hence ``NoReturn`` and ``object``. With Any,
    # as in a type that is not known, mypy would take the result of ``gather()`` for Any.
    _closures: Closures

    @abstractmethod
    def _assert_open(self) -> None:
        """Raise ``DatabaseClosedError`` unless the facade is open."""

    def run_read(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[NoReturn, object, T]:
        """Run ``fn(session, ...)`` on a reader, in a single hop: ``await run_read(fn, ...)``.

        ``fn`` is a plain function, ``session`` a synchronous ``Session`` that sees one snapshot and
        cannot write. ``fn`` awaits nothing, and so is as fast as synchronous SQLAlchemy. It runs in
        a thread, with the caller's context variables. Its result is returned; ORM objects are
        detached, with everything that was loaded.

        Wait at most ``read_timeout`` seconds for a reader. ``statement_timeout`` applies to each
        statement. A cancellation stops ``fn`` at its next statement, or in the middle of one. Raise
        whatever ``fn`` raises, and :class:`~sa_sqlite_pool.ClosureError` if ``fn`` does something
        that is not allowed, such as returning an object that would do its work later.
        """
        self._assert_may_run(fn)
        return self._closures.read(
            self._closures.reading_session, lambda s: fn(s, *args, **kwargs), fn
        )

    def run_write(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[NoReturn, object, T]:
        """Run ``fn(session, ...)`` on the writer, in one transaction: ``await run_write(fn, ...)``.

        The transaction is committed when this returns, and rolled back if ``fn`` raises. Calls that
        wait at the same time share one COMMIT (``group_commit``); each fails separately, and none
        runs twice. Everything else is as in :meth:`run_read`.

        Wait at most ``write_timeout`` seconds for the turn, then raise
        :class:`~sa_sqlite_pool.WriteTimeout`: ``fn`` has not run. A cancellation before ``fn`` has
        begun drops the call; a later one rolls it back, unless ``fn`` has returned: then it is
        committed. If SQLite itself rolls back the work of several calls (for example because the
        disk is full), each raises an error.
        """
        self._assert_may_run(fn)
        return self._closures.write(
            self._closures.with_session, lambda s: fn(s, *args, **kwargs), fn
        )

    def run_read_core(
        self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[NoReturn, object, T]:
        """Run ``fn`` as :meth:`run_read` does, with a ``Connection``: faster, without the ORM."""
        self._assert_may_run(fn)
        return self._closures.read(_reading_connection, lambda c: fn(c, *args, **kwargs), fn)

    def run_write_core(
        self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[NoReturn, object, T]:
        """Run ``fn`` as :meth:`run_write` does, with a ``Connection``: faster, without the ORM."""
        self._assert_may_run(fn)
        return self._closures.write(_with_connection, lambda c: fn(c, *args, **kwargs), fn)

    def _assert_may_run(self, fn: object) -> None:
        self._assert_open()
        self._closures.assert_outside()
        assert_plain(fn)

"""The connection that SQLAlchemy sees: its roles, cursors, checkout and check-in.

:class:`~.executor.Executor` executes its statements.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, final

import aiosqlite
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ..errors import ConfigurationError
from ..execution.connection_thread import NEVER_CLOSED, ConnectionThread
from ..execution.raw import closed_connection
from ..execution.running import no_connection
from ..settings import Role
from ..sqlite.driver_errors import dbapi
from ..sqlite.inspection import ask
from ..sqlite.isolation import check_isolation_level, leave_to_driver
from ..transactions.placement import PlacementPolicy
from ..transactions.streams import GIVEN_BACK, close_abandoned
from ..turn.permit import Permit
from .cursors import Cursor, StreamCursor
from .executor import Executor
from .raw_connection import lend, take_back

Keep = Callable[[ConnectionThread, PlacementPolicy], None]
"""Keeps a warm and clean connection for the next checkout. Any thread may call it."""


@final
class SQLiteConnection(AsyncAdapt_aiosqlite_connection):
    """One SQLite connection behind SQLAlchemy's synchronous driver interface.

    It is an instance of SQLAlchemy's own class, as listeners expect; every public name of that
    class is overridden, or uses only names that are.

    ``executor`` executes its statements, and ``worker`` is the underlying connection.

    :param keep: receives the connection if this object is discarded although SQLite's connection
        is still good; see :meth:`terminate`
    :param isolation_level: the level in ``connect_args``; None means autocommit
    """

    __slots__ = (
        "__weakref__",
        "_being_given_up",
        "_executor",
        "_keep",
        "_level",
        "_level_at_rest",
        "_on_gone",
        "_streams",
        "_transaction",
        "worker",
    )

    await_ = staticmethod(await_only)  # as in SQLAlchemy 2.0

    def __init__(
        self, dbapi: Any, executor: Executor, keep: Keep, isolation_level: str | None = ""
    ) -> None:
        self.dbapi = dbapi
        self._executor = executor
        self.worker = executor.worker
        self._keep = keep
        self._on_gone: Callable[[], None] | None = None
        self._being_given_up = False
        self._transaction = executor.transaction
        self._streams = executor.transaction.streams
        self._level = self._level_at_rest = isolation_level
        executor.autocommit = isolation_level is None

    # -- what SQLAlchemy and its users expect of a driver connection ---------------------------

    @property
    def executor(self) -> Executor:
        """The executor of this connection, for code that has checked the connection out."""
        return self._executor

    @property
    def _connection(self) -> aiosqlite.Connection:  # type: ignore[override]
        """The raw connection, for ``driver_connection`` and ``run_async()``.

        Its use bypasses this adapter, so until the check-in SQLite's busy timeout waits for locks,
        and ``sqlite3`` begins transactions. Once this connection is given up, another task may use
        SQLite's connection, so this is a closed one.
        """
        if not (self.worker.closed or self.worker.lent):
            lend(self._executor, self._level)
        # Lend                          | Give up, in any thread
        # lent = True                   | ended = …
        # if ended: a closed one        | if lent: close, do not keep
        # Whichever runs last, no other task gets the connection that the application uses.
        if self.worker.ended is not None:
            return closed_connection()
        return self.worker.aiosqlite_connection

    def _leave_transactions_to_driver(self) -> None:
        """Make ``sqlite3`` begin a transaction before DML on the raw connection, as on stock.

        Otherwise, each row would be committed at once, and rollback() would undo nothing. Do
        nothing while a listener sets the connection up: that transaction would not be ended.
        """
        if self._transaction.permit is None:
            return
        connection = self.worker.connection
        set_level = partial(leave_to_driver, connection, self._level)
        if in_greenlet() and not self.worker.at_rest:  # sqlite3 checks for an open transaction
            self._executor.run_in_thread(set_level)
        else:
            set_level()

    @property
    def in_transaction(self) -> bool:
        """True while SQLite has a transaction open."""
        return self.worker.in_transaction

    @property
    def isolation_level(self) -> str | None:
        """None for AUTOCOMMIT, as in ``sqlite3``; the dialect's AUTOCOMMIT option sets it.

        A level set before the first checkout, by ``connect_args`` or a ``connect`` listener,
        applies to every checkout.
        """
        return self._level

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        self._level = check_isolation_level(level)
        self._executor.autocommit = level is None
        if self.worker.lent:
            self._leave_transactions_to_driver()
        if self._transaction.permit is None:
            self._level_at_rest = level

    @property
    def role(self) -> Role:
        """The role of the next transaction."""
        return self._executor.role

    def ask_for_role(self, name: object) -> None:
        """Set the role that the ``sqlite_role`` execution option names.

        An invalid role is refused at the first statement: an error raised here, while SQLAlchemy
        sets the connection up, would leave the connection checked out.
        """
        rules = self._executor.rules
        try:
            role = Role.parse("sqlite_role", name)
            if role not in rules.roles:
                raise ConfigurationError(
                    f"sqlite_role={role.value!r} is not available on the "
                    f"{rules.role.value} engine of {rules.label}; use the "
                    f"{role.value} engine, or a SQLitePool"
                )
        except ConfigurationError as error:
            self._executor.misuse = error
        else:
            self._executor.role = rules.role if role is Role.AUTO else role

    @property
    def long_read(self) -> bool:
        """True if read transactions have been declared long (``sqlite_long_read``)."""
        return self._transaction.long

    @long_read.setter
    def long_read(self, value: bool) -> None:
        self._transaction.long = value

    def reset_role(self) -> None:
        """Restore the default role of the engine's connections."""
        self._executor.role = self._executor.rules.role
        self._executor.misuse = None

    def cursor(self, server_side: bool = False) -> Cursor | StreamCursor:
        if self._streams:
            self._close_abandoned_streams()
        if server_side:
            return StreamCursor(self, self._executor, self._streams)
        return Cursor(self, self._executor)

    def execute(self, operation: str, parameters: Any = None) -> Cursor:
        cursor = Cursor(self, self._executor)
        cursor.execute(operation, parameters)
        return cursor

    def _close_abandoned_streams(self) -> None:
        """Release the snapshots of streams that were neither exhausted nor closed.

        ``sqlite3`` does that when it frees the cursor, at once and in any thread.
        """
        if any(stream.abandoned for stream in self._streams):
            self._executor.run_briefly(lambda: close_abandoned(self._streams))

    def create_function(self, *args: Any, **kw: Any) -> None:
        self._executor.policy.function_registered(args[0] if args else kw.get("name"))
        self._executor.run_briefly(lambda: self.worker.connection.create_function(*args, **kw))

    def reads_uncommitted(self) -> bool:
        """Return the value of ``PRAGMA read_uncommitted``, a flag of the connection."""
        executor = self._executor

        def look() -> bool:
            with executor.authorizer.aside():
                return bool(ask(self.worker.connection, "read_uncommitted"))

        if executor.policy.keeps_to_thread:
            return executor.run_in_thread(look)
        return executor.run_briefly(look)

    def commit(self) -> None:
        """Commit the open transaction; this costs nothing if none is open.

        A cancellation meanwhile is raised only after SQLite has answered. If SQLite refuses (a
        deferred foreign key, a full disk), the transaction is rolled back before the error is
        raised: SQLAlchemy considers it ended, and does not send a ROLLBACK.
        """
        self._transaction.commit()

    def rollback(self) -> None:
        """Roll back the open transaction; this costs nothing if none is open.

        Open streams can still be read: "pending read operations continue functioning after the
        ROLLBACK as long as the ROLLBACK does not modify the database schema"
        (https://www.sqlite.org/lang_transaction.html).
        """
        self._transaction.rollback()

    def end_read(self) -> None:
        """End the read transaction; an open stream keeps the snapshot until the stream ends."""
        self._transaction.end_read()

    @property
    def has_open_streams(self) -> bool:
        """True while any result whose rows are fetched on demand is open."""
        return bool(self._transaction.streams)

    @property
    def keeps_others_from_committing(self) -> bool:
        """True if commits wait for reads on this connection, because there is no WAL."""
        return self._executor.rules.commits_wait

    def data_version(self) -> int:
        """Return a number that changes when others commit; a snapshot keeps its own number."""
        return self._executor.data_version()

    # -- checked out ----------------------------------------------------------------------------

    def checked_out(self, permit: Permit | None, on_gone: Callable[[], None]) -> None:
        """Begin a checkout, for the pool. Wait for the rest of the set-up, if any is left.

        If the connection is closed or given up before its check-in, ``on_gone`` is called, in any
        thread, after its transaction has ended.
        """
        executor = self._executor
        if not executor.ready:
            executor.make_ready()
        executor.settings_changed = False
        transaction = self._transaction
        transaction.permit, transaction.cancelled = permit, False
        self._on_gone = on_gone
        if self.worker.lent:  # a listener has used the raw connection
            self._leave_transactions_to_driver()

    def on_gone(self, on_gone: Callable[[], None]) -> None:
        """Register ``on_gone`` as :meth:`checked_out` does, which may still be running."""
        self._on_gone = on_gone

    @property
    def given_up(self) -> bool:
        """True if the connection is closed, or about to be."""
        return self.worker.closed

    def checked_in(self) -> None:
        """Reset the connection for the next checkout. The pool calls this."""
        executor = self._executor
        if self._streams:
            for stream in list(self._streams):
                stream.close(executor, GIVEN_BACK)
        self._transaction.rollback()
        self._level = level = self._level_at_rest
        executor.autocommit = level is None
        if executor.worker.lent and not self.given_up:
            if in_greenlet():
                try:
                    take_back(executor)
                except dbapi.Error:
                    if not self.given_up:  # if it was, meanwhile, it does not return to the pool
                        raise
            else:  # close() of engine.raw_connection(), which cannot wait
                self.give_up("it was returned outside a greenlet", keep=False)
        self._transaction.permit = None

    def close(self) -> None:
        """Close the connection and wait for it; outside a greenlet, give it up without a wait."""
        if self._being_given_up:
            return  # its thread reports the end of its transaction
        if not in_greenlet():
            self.give_up("it was closed", keep=False)
            return
        try:
            await_only(self.worker.close(self._detach_streams("it was closed")))
        finally:
            self._gone(None)

    def terminate(self) -> None:
        """Give up the connection now, without waiting.

        SQLAlchemy discards a connection after a cancellation, and when the garbage collector
        finds it. SQLite's connection is still good then: the running statement is stopped, the
        transaction is rolled back, and the connection is kept for the next checkout.
        """
        self._executor.counts.thrown_away += 1
        innocent = self._transaction.cancelled or not in_greenlet()
        self.give_up("it was closed", keep=innocent and self._executor.is_as_opened)

    def give_up(self, reason: str, *, keep: bool) -> None:
        """Give up the connection now, from any thread; see :meth:`.ConnectionThread.give_up`."""
        self._being_given_up = True
        self._transaction.permits_come_back()
        cursors = self._detach_streams(reason)
        self.worker.give_up(reason, keep=keep, done=self._gone, cursors=cursors)

    def _detach_streams(self, reason: str) -> Callable[[], list[sqlite3.Cursor]]:
        """Return a function that returns the open cursors; later fetches raise ``reason``."""
        detach = self._transaction.detach_streams
        return partial(detach, no_connection(reason), sqlite3.OperationalError)

    def close_before_fork(self) -> None:
        """Close this connection, which is at rest in its pool, at once, from any thread."""
        self.worker.close_before_fork()

    def _gone(self, successor: ConnectionThread | None) -> None:
        try:
            if successor is not None:
                self._executor.counts.kept += 1
                self._keep(successor, self._executor.policy)
        finally:  # otherwise, the turn would never be released
            self._transaction.gone()
            on_gone, self._on_gone = self._on_gone, None
            if on_gone is not None:
                on_gone()

    def __del__(self) -> None:
        if self.worker.ended == NEVER_CLOSED:  # the garbage collector has freed it first
            self._gone(None)
        elif self.worker.closed:
            return
        elif self.worker.lent:  # the application may still have the raw connection
            self.worker.leave_to_others(self._detach_streams(NEVER_CLOSED)())
            self._gone(None)
            return
        else:
            self.give_up(NEVER_CLOSED, keep=False)
        warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=1)

    def __repr__(self) -> str:
        rules, permit = self._executor.rules, self._transaction.permit
        kind = "" if rules.role is Role.AUTO else f" {rules.role.value}"
        status = "at rest" if permit is None else f"checked out at {permit.asked_at}"
        return f"<SQLiteConnection {rules.label}{kind}, {status}>"


# Some listeners check the name of the class, or look for "aiosqlite" in its printed form.
SQLiteConnection.__name__ = SQLiteConnection.__qualname__ = AsyncAdapt_aiosqlite_connection.__name__

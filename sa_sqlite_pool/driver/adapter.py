"""The connection that SQLAlchemy sees: transactions, roles, the write turn, waiting for locks.

Python's ``sqlite3`` begins transactions by itself, only before DML, and never for SELECT, DDL or
SAVEPOINT. That is switched off (``isolation_level=None``); the adapter sends BEGIN with the first
statement that needs one, in the same hop. ``in_transaction`` is always SQLite's own answer, never
a copy of it, so nothing here can disagree with the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar, final

import aiosqlite
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ..errors import ConfigurationError, ForbiddenWriteError, TransactionLostError
from ..settings import Role
from ..turn.fair_semaphore import Permit, shorten
from .cursors import Cursor, StreamCursor
from .guard import Guard
from .locks import Patience, may_pass
from .placement import Place, place_of_end
from .rules import Plan, Rules, Standing, is_refused, needs_turn, plan
from .statements import Kind, classify
from .worker import Worker

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]


@final
class SQLiteConnection(AdaptedConnection):
    """One SQLite connection behind SQLAlchemy's synchronous driver interface.

    ``loan`` is the permit under which the connection is checked out of its pool; the SQL that
    runs is noted there for messages.
    """

    __slots__ = (
        "_autocommit",
        "_guard",
        "_judged",
        "_lent_raw",
        "_lost",
        "_misuse",
        "_permit",
        "_role",
        "_rules",
        "_streams",
        "_wrote",
        "dbapi",
        "loan",
        "worker",
    )

    def __init__(self, dbapi: Any, worker: Worker, guard: Guard | None, rules: Rules) -> None:
        self.dbapi = dbapi
        self.worker = worker
        self.loan: Permit | None = None
        self._guard = guard
        self._rules = rules
        self._role = rules.role
        self._autocommit = False
        self._permit: Permit | None = None  # the write turn, if it is ours
        self._lent_raw = False  # somebody works on the connection beside this adapter
        self._wrote = False  # the open transaction ran more than reads
        self._misuse: ConfigurationError | None = None  # raised at the next statement
        self._lost: str | None = None  # why SQLite ended the transaction by itself
        self._judged: dict[str, Kind] = {}  # texts that look like reads and are none
        self._streams: set[StreamCursor] = set()

    # -- what SQLAlchemy and its users ask of a driver connection ------------------------------

    @property
    def _connection(self) -> aiosqlite.Connection:  # type: ignore[override]
        """The raw connection, for ``driver_connection`` and ``run_async()``.

        What runs there passes this adapter by, so SQLite's busy time-out does the waiting until
        the connection is given back.
        """
        if not self._lent_raw and not self.worker.closed and self.worker.may_run_inline:
            self._lent_raw = True
            self._set_busy_timeout(self._rules.write_timeout)
        return self.worker.aiosqlite_connection

    def _set_busy_timeout(self, seconds: float) -> None:
        connection = self.worker.connection
        sql = f"PRAGMA busy_timeout = {int(seconds * 1000)}"
        self.run_briefly(lambda: connection.execute(sql).close())

    @property
    def in_transaction(self) -> bool:
        """Whether SQLite has a transaction open."""
        return self.worker.in_transaction

    @property
    def isolation_level(self) -> str | None:
        """None for AUTOCOMMIT, as with ``sqlite3``; the dialect's AUTOCOMMIT option sets it."""
        return None if self._autocommit else ""

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        self._autocommit = level is None

    @property
    def role(self) -> Role:
        """What the next transaction is for."""
        return self._role

    def ask_for_role(self, name: object) -> None:
        """Take the role that the ``sqlite_role`` execution option names.

        What cannot be is refused at the first statement: an error raised here, while SQLAlchemy
        sets the connection up, would leave it checked out.
        """
        try:
            role = Role.parse("sqlite_role", name)
            if role not in self._rules.roles:
                raise ConfigurationError(
                    f"sqlite_role={role.value!r} is not to be had from the "
                    f"{self._rules.role.value} engine of {self._rules.label}; use the "
                    f"{role.value} engine, or a SQLitePool"
                )
        except ConfigurationError as error:
            self._misuse = error
        else:
            self._role = self._rules.role if role is Role.AUTO else role

    def reset_role(self) -> None:
        """Back to what the engine's connections are for."""
        self._role = self._rules.role
        self._misuse = None

    def cursor(self, server_side: bool = False) -> Cursor:
        return StreamCursor(self) if server_side else Cursor(self)

    def execute(self, operation: str, parameters: Any = None) -> Cursor:
        cursor = self.cursor()
        cursor.execute(operation, parameters)
        return cursor

    def create_function(self, *args: Any, **kw: Any) -> None:
        self.run_briefly(lambda: self.worker.connection.create_function(*args, **kw))

    def commit(self) -> None:
        """Commit what is open; costs nothing where nothing is.

        A cancellation meanwhile is raised only after SQLite has answered. Where SQLite refuses (a
        deferred foreign key, a full disk), the transaction is rolled back before the error is
        raised: SQLAlchemy takes it for over, and sends no ROLLBACK of its own.
        """
        if self._lost is not None:
            lost, self._lost = self._transaction_lost(), None
            raise lost
        try:
            self._end("COMMIT")
        except Exception:
            self._end("ROLLBACK")
            raise

    def rollback(self) -> None:
        """Roll back what is open, and close open streams; costs nothing where nothing is."""
        self._lost = None
        for stream in list(self._streams):
            stream.close()
        self._end("ROLLBACK")

    def close(self) -> None:
        try:
            await_only(self.worker.close())
        finally:
            self._release_turn()

    def terminate(self) -> None:
        """Close now: interrupt what runs. The turn is given back once the lock is gone."""
        if in_greenlet():
            self.worker.interrupt()
            self.close()
        else:
            self.worker.abandon(self._release_turn)

    def end_snapshot(self) -> bool:
        """End the read transaction; whether anybody has committed since it began."""
        return await_only(self.worker.run(_end_snapshot))

    def checked_in(self) -> None:
        """Back to what a fresh checkout expects. Called by the pool."""
        self.rollback()
        if self._lent_raw:
            self._lent_raw = False
            self._set_busy_timeout(0)
        self.loan = None

    # -- what the cursors ask -------------------------------------------------------------------

    def run_statement(self, sql: str, call: Call[T], *, atomic: bool = False) -> T:
        """Execute ``sql`` by ``call``, in one hop with the BEGIN that it may need.

        ``atomic`` (executemany) is all or nothing also in AUTOCOMMIT: otherwise a lock held by
        somebody else could stop it half way, and the next try would insert the first half again.
        """
        if self._misuse is not None:
            raise self._misuse
        if self._lost is not None:
            raise self._transaction_lost()
        self._note(sql)
        kind = self._judged.get(sql) or classify(sql)
        patience = Patience(self._rules, writing=kind.writes or self._role is Role.WRITER)
        while True:
            try:
                return self._attempt(sql, kind, call, atomic, patience)
            except _Misjudged as misjudged:
                self._judged[sql] = misjudged.kind
                break
            except sqlite3.OperationalError as error:
                if not may_pass(error, in_transaction=self.worker.in_transaction):
                    raise
                await_only(patience.wait(error))
        return self.run_statement(sql, call, atomic=atomic)

    def run_in_thread(self, call: Callable[[], T]) -> T:
        """Run what begins and ends no transaction, such as fetching: one hop."""
        return await_only(self.worker.run(lambda _: call()))

    def run_briefly(self, call: Callable[[], T]) -> T:
        """Run what neither waits nor reads the file: on the loop, if the thread is idle."""
        return call() if self.worker.may_run_inline else self.run_in_thread(call)

    def stream_opened(self, cursor: StreamCursor) -> None:
        self._streams.add(cursor)

    def stream_closed(self, cursor: StreamCursor) -> None:
        self._streams.discard(cursor)

    # -- statements -----------------------------------------------------------------------------

    def _attempt(self, sql: str, kind: Kind, call: Call[T], atomic: bool, patience: Patience) -> T:
        was_open = self.worker.in_transaction
        try:
            plan = self._admit(sql, kind, atomic, was_open, patience)
            return await_only(
                self.worker.run(lambda connection: self._perform(connection, plan, call), text=sql)
            )
        except sqlite3.Error as error:
            self._explain(error, kind)
            if was_open and not self.worker.in_transaction and kind is not Kind.END:
                self._lost = str(error)
            raise
        finally:
            if kind.writes or kind is Kind.SAVEPOINT:
                self._wrote = True
            if not self.worker.in_transaction:
                self._transaction_ended()

    def _admit(
        self, sql: str, kind: Kind, atomic: bool, in_transaction: bool, patience: Patience
    ) -> Plan:
        """Refuse what may not be, wait for the turn, and say how to go on."""
        turn = self._rules.turn
        has_turn = self._permit is not None
        standing = Standing(
            self._role, turn is not None, has_turn, self._autocommit, in_transaction
        )
        if is_refused(kind, standing):
            raise self._forbidden(shorten(sql))
        if turn is not None and needs_turn(kind, standing):
            self._permit = await_only(turn.acquire(patience.seconds_left))
            self._permit.last_sql = sql
            standing = standing._replace(has_turn=True)
        return plan(kind, standing, atomic=atomic)

    def _perform(self, connection: sqlite3.Connection, plan: Plan, call: Call[T]) -> T:
        guard = self._guard
        if guard is None:
            return _execute(connection, plan, call)
        guard.denied = None
        resting, guard.access = guard.access, plan.access
        try:
            return _execute(connection, plan, call)
        finally:
            guard.access = resting

    def _explain(self, error: sqlite3.Error, kind: Kind) -> None:
        denied = self._guard and self._guard.denied
        if not denied:
            return
        if self._role is Role.READER:
            raise self._forbidden(denied) from error
        raise _Misjudged(Kind.MAINTENANCE if kind is Kind.SETTING else Kind.WRITE) from error

    def _forbidden(self, what: str) -> ForbiddenWriteError:
        return ForbiddenWriteError(
            f"a reader of {self._rules.label} cannot change a database: {what}; "
            "use a writer session or the writer engine"
        )

    # -- the end of a transaction ---------------------------------------------------------------

    def _end(self, sql: str) -> None:
        try:
            if self.worker.in_transaction:
                self._note(sql)
                self._send_end(sql)
        finally:
            if not self.worker.in_transaction:
                self._transaction_ended()

    def _send_end(self, sql: str) -> None:
        if place_of_end(self.worker, wrote=self._wrote) is Place.INLINE:
            self.worker.connection.execute(sql)
        else:
            self._end_in_thread(sql)

    def _end_in_thread(self, sql: str) -> None:
        patience = Patience(self._rules, writing=True)
        while True:
            try:
                job = self.worker.run(
                    lambda connection: _end(connection, sql), text=sql, interruptible=False
                )
                return await_only(job)
            except sqlite3.OperationalError as error:
                # COMMIT waits for readers where there is no WAL; the transaction stays open.
                if not may_pass(error, in_transaction=False):
                    raise
                await_only(patience.wait(error))

    def _transaction_ended(self) -> None:
        self._wrote = False
        self._release_turn()

    def _release_turn(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None and self._rules.turn is not None:
            self._rules.turn.release(permit)

    def _transaction_lost(self) -> TransactionLostError:
        return TransactionLostError(
            f"SQLite has rolled this transaction back by itself ({self._lost}); nothing of it is "
            "kept: call rollback() and start again"
        )

    def _note(self, sql: str) -> None:
        if self.loan is not None:
            self.loan.last_sql = sql
        if self._permit is not None:
            self._permit.last_sql = sql


class _Misjudged(Exception):  # noqa: N818 - no error: a way to go again
    """SQLite says that what looked like a read is of another kind."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind = kind


def _execute(connection: sqlite3.Connection, plan: Plan, call: Call[T]) -> T:
    if plan.begin is not None:
        connection.execute(plan.begin)
    if not plan.commit:
        return call(connection)
    try:
        result = call(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _end_snapshot(connection: sqlite3.Connection) -> bool:
    # "The integer values returned by two invocations of "PRAGMA data_version" from the same
    # connection will be different if changes were committed to the database by any other
    # connection in the interim": https://www.sqlite.org/pragma.html#pragma_data_version
    versions = []
    for _ in range(2):
        versions.append(connection.execute("PRAGMA data_version").fetchone())
        _end(connection, "ROLLBACK")
    return bool(versions[0] != versions[1])


def _end(connection: sqlite3.Connection, sql: str) -> None:
    if connection.in_transaction:
        connection.execute(sql)

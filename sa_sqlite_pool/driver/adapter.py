"""The connection that SQLAlchemy sees: transactions, roles, the write turn, waiting for locks.

Python's ``sqlite3`` begins transactions by itself, only before DML, and never for SELECT, DDL or
SAVEPOINT. That is switched off (``isolation_level=None``); the adapter sends BEGIN with the first
statement that needs one, in the same hop. ``in_transaction`` is always SQLite's own answer, never
a copy of it, so nothing here can disagree with the database.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, final

import aiosqlite
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from ..errors import (
    ConfigurationError,
    ForbiddenWriteError,
    ReadTimeout,
    TransactionLostError,
    WriteTimeout,
)
from ..settings import Role
from ..turn.fair_semaphore import Permit, shorten
from ..turn.write_turn import WriteTurn
from .cursors import Cursor, StreamCursor
from .guard import Access, Guard
from .placement import Place, place_of_end
from .statements import Kind, classify
from .worker import Worker

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], T]

# Seconds between two tries for a lock that somebody outside this process holds. SQLite's own
# back-off grows to 100 ms and keeps no order: sqliteDefaultBusyCallback in its main.c.
_RETRY_SECONDS = (0.001, 0.002)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the connections of one pool may do, and how long they wait.

    ``turn`` is taken at the first write and given back at the end of the transaction; None where
    whoever has checked the connection out already has the turn, or can never write.
    """

    role: Role
    label: str
    turn: WriteTurn | None
    write_timeout: float
    read_timeout: float

    @property
    def roles(self) -> frozenset[Role]:
        """The roles that ``sqlite_role`` may ask for."""
        return frozenset(Role) if self.role is Role.AUTO else frozenset({Role.AUTO, self.role})


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one statement is executed: what goes before and after it, in the same hop."""

    access: Access
    begin: str | None = None
    commit: bool = False


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
        self._wrote = False  # the open transaction ran more than reads
        self._misuse: ConfigurationError | None = None  # raised at the next statement
        self._lost: str | None = None  # why SQLite ended the transaction by itself
        self._judged: dict[str, Kind] = {}  # texts that look like reads and are none
        self._streams: set[StreamCursor] = set()

    # -- what SQLAlchemy and its users ask of a driver connection ------------------------------

    @property
    def _connection(self) -> aiosqlite.Connection:  # type: ignore[override]
        """The raw connection, for ``driver_connection`` and ``run_async()``.

        What runs there passes this adapter by, so SQLite's busy time-out does the waiting.
        """
        if not self.worker.closed and self.worker.may_run_inline:
            timeout_ms = int(self._rules.write_timeout * 1000)
            self.worker.connection.execute(f"PRAGMA busy_timeout = {timeout_ms}")
        return self.worker.aiosqlite_connection

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
        self.loan = None

    # -- what the cursors ask -------------------------------------------------------------------

    def run_statement(self, sql: str, call: Call[T]) -> T:
        """Execute ``sql`` by ``call``, in one hop with the BEGIN that it may need."""
        return await_only(self._run(sql, call))

    def run_many(self, sql: str, call: Call[T]) -> T:
        """The same for executemany, which is all or nothing also in AUTOCOMMIT.

        Otherwise a lock held by somebody else could stop it half way, and the rows of the first
        half would be inserted again at the next try.
        """
        return await_only(self._run(sql, call, atomic=True))

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

    async def _run(self, sql: str, call: Call[T], *, atomic: bool = False) -> T:
        if self._misuse is not None:
            raise self._misuse
        if self._lost is not None:
            raise self._transaction_lost()
        self._note(sql)
        kind = self._judged.get(sql) or classify(sql)
        patience = _Patience(self._rules, writing=kind.writes or self._role is Role.WRITER)
        while True:
            try:
                return await self._attempt(sql, kind, call, atomic=atomic, patience=patience)
            except _Misjudged as misjudged:
                self._judged[sql] = misjudged.kind
                break
            except sqlite3.OperationalError as error:
                if not self._worth_another_try(error):
                    raise
                await patience.wait(error)
        return await self._run(sql, call, atomic=atomic)

    async def _attempt(
        self, sql: str, kind: Kind, call: Call[T], *, atomic: bool, patience: _Patience
    ) -> T:
        was_open = self.worker.in_transaction
        try:
            if self._rules.turn is not None and self._needs_turn(kind):
                self._permit = await self._rules.turn.acquire(patience.seconds_left)
                self._permit.last_sql = sql
            plan = self._plan(sql, kind, atomic=atomic, was_open=was_open)
            return await self.worker.run(lambda connection: self._perform(connection, plan, call))
        except sqlite3.Error as error:
            self._explain(error, kind)
            if was_open and not self.worker.in_transaction and kind is not Kind.END:
                self._lost = str(error)
            raise
        finally:
            self._wrote = self._wrote or kind.writes or kind is Kind.SAVEPOINT
            if not self.worker.in_transaction:
                self._transaction_ended()

    def _needs_turn(self, kind: Kind) -> bool:
        if self._permit is not None or self._role is Role.READER:
            return False
        if self._autocommit:
            return kind.writes
        if self._role is Role.WRITER:
            return kind.writes or kind.opens_transaction
        return kind.writes or (kind is Kind.SAVEPOINT and not self.worker.in_transaction)

    def _plan(self, sql: str, kind: Kind, *, atomic: bool, was_open: bool) -> _Plan:
        if self._role is Role.READER:
            self._refuse_write(sql, kind)
        access = self._access(kind)
        if was_open:
            return _Plan(access)
        if self._autocommit:
            atomically = atomic and kind is Kind.WRITE
            return _Plan(access, "BEGIN IMMEDIATE" if atomically else None, commit=atomically)
        return _Plan(access, self._begin(kind))

    def _access(self, kind: Kind) -> Access:
        if kind is Kind.EXPLAIN:
            return Access.ALL  # compiled and not run, even if what it explains would write
        if self._role is Role.READER:
            return Access.READER
        without_turn = self._rules.turn is not None and self._permit is None
        return Access.NO_WRITES if without_turn else Access.ALL

    def _begin(self, kind: Kind) -> str | None:
        if not kind.opens_transaction:
            return None
        if self._role is Role.READER:
            return "BEGIN"
        if self._role is Role.WRITER or kind in {Kind.WRITE, Kind.SAVEPOINT}:
            return "BEGIN IMMEDIATE"
        return None  # a swap-in connection reads without a transaction, as the stock driver does

    def _refuse_write(self, sql: str, kind: Kind) -> None:
        # On a reader engine the guard knows better what is a temp table. A swap-in connection may
        # have compiled the text before, as a writer, and then the guard is not asked again.
        swap_in = self._rules.role is Role.AUTO
        certainly = kind in {Kind.BEGIN_WRITE, Kind.MAINTENANCE}
        if certainly or (swap_in and (kind.writes or kind is Kind.ATTACH)):
            raise self._forbidden(shorten(sql))

    def _perform(self, connection: sqlite3.Connection, plan: _Plan, call: Call[T]) -> T:
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

    def _worth_another_try(self, error: sqlite3.OperationalError) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # Python 3.10 does not tell the code
            return "is locked" in str(error) and not self.worker.in_transaction
        # "The SQLITE_BUSY_SNAPSHOT error code is an extended error code for SQLITE_BUSY that
        # occurs on WAL mode databases when a database connection tries to promote a read
        # transaction into a write transaction but finds that another connection has already
        # written": https://www.sqlite.org/rescode.html#busy_snapshot. Waiting cannot help.
        return code & 0xFF in _LOCKED and code != _BUSY_SNAPSHOT

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
            await_only(self._end_in_thread(sql))

    async def _end_in_thread(self, sql: str) -> None:
        patience = _Patience(self._rules, writing=True)
        while True:
            try:
                await self.worker.run(lambda connection: _end(connection, sql), interruptible=False)
            except sqlite3.OperationalError as error:
                if not self._worth_another_try(error):
                    raise
                await patience.wait(error)
            else:
                return

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


_LOCKED = frozenset({5, 6})  # SQLITE_BUSY, SQLITE_LOCKED (shared cache)
_BUSY_SNAPSHOT = 517


class _Misjudged(Exception):  # noqa: N818 - no error: a way to go again
    """SQLite says that what looked like a read is of another kind."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind = kind


class _Patience:
    """One monotonic deadline for all the waiting of one call."""

    __slots__ = ("_deadline", "_loop", "_rules", "_seconds", "_writing")

    def __init__(self, rules: Rules, *, writing: bool) -> None:
        self._rules = rules
        self._writing = writing
        self._seconds = rules.write_timeout if writing else rules.read_timeout
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + self._seconds

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._deadline - self._loop.time())

    async def wait(self, error: sqlite3.OperationalError) -> None:
        """A moment before the next try; the time-out's error when there is none left."""
        if self.seconds_left <= 0:
            raise self._timeout() from error
        await asyncio.sleep(random.uniform(*_RETRY_SECONDS))  # noqa: S311 - jitter

    def _timeout(self) -> WriteTimeout | ReadTimeout:
        if self._writing:
            return WriteTimeout(
                f"waited {self._seconds:.2f} s to write to {self._rules.label}; somebody "
                "outside this process, or outside this package, holds SQLite's lock (another "
                "worker, a stock engine, an sqlite3 shell); end that transaction or raise "
                "write_timeout"
            )
        return ReadTimeout(
            f"waited {self._seconds:.2f} s to read from {self._rules.label}; another connection "
            "holds SQLite's lock exclusively; end its transaction or raise read_timeout"
        )


def _execute(connection: sqlite3.Connection, plan: _Plan, call: Call[T]) -> T:
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

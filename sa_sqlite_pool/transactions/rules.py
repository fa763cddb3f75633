"""Decide what a statement needs, without access to the database."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

from ..errors import ForbiddenWriteError, StatementTimeout
from ..files.neighbours import describe_writer
from ..settings import Role
from ..slow_statements import NOT_TIMED, SlowStatements
from ..sqlite.authorizer import Access
from ..sqlite.statements import Kind
from ..turn.permit import shorten
from ..turn.snapshots import Snapshots
from ..turn.waits import UNWATCHED, WaitWatch
from ..turn.write_turn import UNKNOWN_CONNECTION, WriteTurn


class Keeper(Protocol):
    """Maintains the write-ahead log: a :class:`~sa_sqlite_pool.wal.keeper.WalKeeper`.

    Its calls take little time, and only after a commit.
    """

    @property
    def keeps(self) -> bool:
        """True if SQLite may leave all checkpoints to it."""

    @property
    def due(self) -> object:
        """The maintenance that the log needs; None if it needs none."""

    def is_quiet(self) -> bool:
        """Return whether a COMMIT now only appends to the log, and needs no checkpoint."""

    def connection_opened(self) -> None:
        """Check, in the thread of a new connection, whether a large log was left behind."""

    def relieve(self, connection: sqlite3.Connection) -> int | None:
        """Run urgent maintenance right after a commit, before another process gets the turn.

        Runs in the connection's thread. Return the log's size in bytes, if it was read.
        """

    def look(self, connection: sqlite3.Connection, size: int | None = None) -> None:
        """Check, right after a commit, whether maintenance is due. Runs in the thread.

        ``size`` is the value returned by :meth:`relieve`.
        """

    def attend(self) -> None:
        """Start the maintenance that is due, on the event loop, once the turn is released."""

    def meet_busy(self) -> None:
        """Record that another program holds SQLite's write lock in our turn. Runs in the thread."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the connections of one pool may do, and how long they wait and run (seconds).

    ``turn`` is the write turn of the file. A transaction acquires it at the first write and
    releases it at its end; within the process, a writer's checkout includes it; a reader never has
    it. ``owner`` represents the engine in line for it; ``wait_watch`` watches the engine's waits,
    and ``slow_statements`` logs its slow statements. ``snapshots`` are the read transactions of the
    file. Those of this connection are registered there if ``enters_snapshots``, and a commit waits
    for them if ``commits_wait``: without WAL. ``keeper`` is notified of commits; None if SQLite
    itself maintains the log. ``file`` is the real path of the database, None in memory.
    ``waits_for_server`` says that even the end of a read may wait for a file server,
    ``opened_read_only``, that SQLite has opened the file with ``mode=ro``. A timeout not given is
    at least the connection's busy timeout, if the application has set that.
    """

    role: Role
    label: str
    turn: WriteTurn
    snapshots: Snapshots
    write_timeout: float
    read_timeout: float
    statement_timeout: float | None
    owner: object
    write_timeout_given: bool = True
    read_timeout_given: bool = True
    wait_watch: WaitWatch = UNWATCHED
    slow_statements: SlowStatements = NOT_TIMED
    enters_snapshots: bool = False
    commits_wait: bool = False
    keeper: Keeper | None = None
    file: str | None = None
    waits_for_server: bool = False
    opened_read_only: bool = False

    @property
    def roles(self) -> frozenset[Role]:
        """The roles that ``sqlite_role`` may request."""
        return frozenset(Role) if self.role is Role.AUTO else frozenset({Role.AUTO, self.role})

    def describe_outside_writers(self) -> str:
        """Return ``process 4242 (sqlite3) outside this package …``: the holder of SQLite's lock.

        Only the operating system knows it; if it does not, no process is said to be outside.
        """
        found = None if self.file is None else describe_writer(self.file)
        return found or UNKNOWN_CONNECTION

    def meet_busy(self) -> None:
        """Record that another program holds SQLite's write lock in our turn. Runs in the thread.

        This notifies the turn and the keeper.
        """
        if self.role is not Role.READER:
            self.turn.meet_busy()
        if self.keeper is not None:
            self.keeper.meet_busy()

    def forbidden(self, what: str) -> ForbiddenWriteError:
        return ForbiddenWriteError(
            f"a reader of {self.label} cannot change a database: {what}; "
            "use a writer session or the writer engine"
        )

    def without_turn(self, what: str | None) -> ForbiddenWriteError:
        return ForbiddenWriteError(
            f"{what} by a function in this statement was refused: the connection to {self.label} "
            'does not have the write turn; begin with sqlite_role="writer" or BEGIN IMMEDIATE'
        )

    def took_too_long(self, sql: str, seconds: float | None, *, lost: bool) -> StatementTimeout:
        rolled_back = (
            "SQLite has rolled back its transaction: call rollback() and start again; "
            if lost
            else ""
        )
        return StatementTimeout(
            f"a statement on {self.label} was stopped after statement_timeout="
            f"{seconds} s: {shorten(sql)}; {rolled_back}shorten it, or raise "
            "statement_timeout (of the engine, or in execution_options of this statement)"
        )


class ConnectionState(NamedTuple):
    """The state of a connection before a statement."""

    role: Role
    swap_in: bool  # of a SQLitePool: it reads without the turn
    has_turn: bool
    autocommit: bool
    in_transaction: bool


class Plan(NamedTuple):
    """How one statement is executed: what goes before and after it, in the same hop."""

    access: Access
    begin: str | None = None
    commit: bool = False


class Decision(NamedTuple):
    """What to do with a statement; if it needs the turn, ``plan`` applies once that is acquired."""

    refused: bool
    needs_turn: bool
    plan: Plan


@cache
def decide(
    kind: Kind,
    role: Role,
    swap_in: bool,
    has_turn: bool,
    autocommit: bool,
    in_transaction: bool,
    atomic: bool,
) -> Decision:
    """Return the decision; the parameters are :class:`ConnectionState`'s and :func:`plan`'s."""
    state = ConnectionState(role, swap_in, has_turn, autocommit, in_transaction)
    needs = needs_turn(kind, state)
    if needs:
        state = state._replace(has_turn=True)
    return Decision(is_refused(kind, state), needs, plan(kind, state, atomic=atomic))


def needs_turn(kind: Kind, state: ConnectionState) -> bool:
    """Return whether the write turn must be acquired first."""
    if state.has_turn or state.role is Role.READER:
        return False
    if kind is Kind.BEGIN:
        return state.role is Role.WRITER
    if state.autocommit or state.role is Role.AUTO:
        return kind.writes
    return kind.writes or kind.opens_transaction


def is_refused(kind: Kind, state: ConnectionState) -> bool:
    """Return whether a reader must not even attempt the statement.

    SQLite itself refuses other writes, since the connection is read-only. It does not refuse these:
    VACUUM INTO writes another file, a checkpoint writes the log to the database, and BEGIN
    IMMEDIATE on a read-only connection begins a read without an error. A swap-in connection is
    read-only only while its role is, and attached files stay attached.
    """
    if state.role is not Role.READER:
        return False
    if kind is Kind.BEGIN_WRITE or kind is Kind.MAINTENANCE:
        return True
    return state.swap_in and kind is Kind.ATTACH


def plan(kind: Kind, state: ConnectionState, *, atomic: bool) -> Plan:
    """Return how to execute this kind; ``atomic`` requires all or nothing even in AUTOCOMMIT."""
    access = _access(kind, state)
    if state.in_transaction:
        return Plan(access)
    if kind is Kind.BEGIN:
        return Plan(access, "BEGIN IMMEDIATE" if state.role is Role.WRITER else None)
    if state.autocommit:
        wrapped = atomic and kind is Kind.WRITE
        return Plan(access, "BEGIN IMMEDIATE" if wrapped else None, commit=wrapped)
    return Plan(access, _begin(kind, state.role))


def _access(kind: Kind, state: ConnectionState) -> Access:
    if kind is Kind.EXPLAIN:
        return Access.EXAMINED  # compiled but not run, even if the explained statement would write
    if state.role is Role.READER:
        return Access.READER
    # A writer has the turn in its transactions: in AUTOCOMMIT, a read may call writing functions.
    without_turn = not state.has_turn and (state.swap_in or state.autocommit)
    return Access.NO_WRITES if without_turn else Access.ALL


def _begin(kind: Kind, role: Role) -> str | None:
    if role is Role.AUTO:  # reads without a transaction, like the stock driver
        return _BEGIN_OF_SWAP_IN.get(kind)
    if role is Role.WRITER:
        return "BEGIN IMMEDIATE" if kind.opens_transaction else None
    return "BEGIN" if kind.opens_transaction else None


# "The defer_foreign_keys pragma is automatically switched off at each COMMIT or ROLLBACK. Hence,
# the defer_foreign_keys pragma must be separately enabled for each transaction":
# https://www.sqlite.org/pragma.html#pragma_defer_foreign_keys. It is set for a transaction that
# writes, and any read outside a transaction would count as such a COMMIT.
_BEGIN_OF_SWAP_IN = {
    Kind.WRITE: "BEGIN IMMEDIATE",
    Kind.DEFERRAL: "BEGIN IMMEDIATE",
    Kind.TEMP_DML: "BEGIN",
}

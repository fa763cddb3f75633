"""What a statement needs, decided without touching the database."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

from ..errors import ForbiddenWriteError, StatementTimeout
from ..files.neighbours import describe_writer
from ..settings import Role
from ..sqlite.authorizer import Access
from ..sqlite.statements import Kind
from ..turn.permit import shorten
from ..turn.snapshots import Snapshots
from ..turn.write_turn import UNKNOWN_CONNECTION, WriteTurn


class Log(Protocol):
    """Who looks after the write-ahead log. Asks for little time, and only after a commit."""

    @property
    def keeps(self) -> bool:
        """Whether SQLite may leave all checkpoints to it."""

    @property
    def due(self) -> bool:
        """Whether something has to be done about the log."""

    def is_quiet(self) -> bool:
        """Whether a COMMIT now only appends to the log, and needs no checkpoint."""

    def found(self) -> None:
        """In the thread of a connection that has just been opened: is there a log to see to?"""

    def relieve(self, connection: sqlite3.Connection) -> int | None:
        """In the connection's thread, right after a commit, before the turn passes on to another
        process: what cannot wait. Returns how many bytes the log has, if that was looked at."""

    def look(self, connection: sqlite3.Connection, size: int | None = None) -> None:
        """In the connection's thread, right after a commit: is there anything to be done?

        ``size`` is what :meth:`relieve` has returned.
        """

    def attend(self) -> None:
        """In the event loop, once the turn is given back: have it done."""

    def meet_busy(self) -> None:
        """In the thread: somebody else has SQLite's write lock, although the turn is ours."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the connections of one pool may do, and how long they wait and run (seconds).

    ``turn`` is taken at the first write and given back at the end of the transaction; None where
    nothing can be written. Who has checked a writer out has it already within the process.
    ``owner`` is for whom they wait in line for it. Read transactions enter ``snapshots``; None
    where nobody asks. ``log`` is told of commits; None where SQLite keeps the log by itself.
    ``file`` is the real path of the database, None in memory.
    ``readers_in_the_way`` are those whom a commit waits for; None in WAL mode, where it waits for
    nobody. ``writer`` and ``readers`` have SQLite's locks in this process: the turn, whoever needs
    it, and the read transactions. ``doubtful`` says that even the end of a read may wait for a
    server.
    ``opened_read_only`` says that SQLite has opened the file with ``mode=ro``.
    """

    role: Role
    label: str
    turn: WriteTurn | None
    write_timeout: float
    read_timeout: float
    statement_timeout: float | None
    owner: object
    snapshots: Snapshots | None = None
    log: Log | None = None
    file: str | None = None
    readers_in_the_way: Snapshots | None = None
    writer: WriteTurn | None = None
    readers: Snapshots | None = None
    doubtful: bool = False
    opened_read_only: bool = False

    @property
    def roles(self) -> frozenset[Role]:
        """The roles that ``sqlite_role`` may ask for."""
        return frozenset(Role) if self.role is Role.AUTO else frozenset({Role.AUTO, self.role})

    def describe_outside_writers(self) -> str:
        """``process 4242 (sqlite3) outside this package …``: what has SQLite's lock now.

        Only what the system tells: without that, nothing is said to be outside.
        """
        found = None if self.file is None else describe_writer(self.file)
        return found or UNKNOWN_CONNECTION

    def meet_busy(self) -> None:
        """In the thread: somebody else has SQLite's write lock, although the turn is ours."""
        if self.turn is not None:
            self.turn.meet_busy()
        if self.log is not None:
            self.log.meet_busy()

    def forbidden(self, what: str) -> ForbiddenWriteError:
        return ForbiddenWriteError(
            f"a reader of {self.label} cannot change a database: {what}; "
            "use a writer session or the writer engine"
        )

    def without_turn(self, what: str | None) -> ForbiddenWriteError:
        return ForbiddenWriteError(
            f"{what} of a function in this statement was refused: the connection to {self.label} "
            'does not have the write turn; begin with sqlite_role="writer" or BEGIN IMMEDIATE'
        )

    def took_too_long(self, sql: str, seconds: float | None, *, lost: bool) -> StatementTimeout:
        rolled_back = (
            "SQLite has rolled its transaction back: call rollback() and start again; "
            if lost
            else ""
        )
        return StatementTimeout(
            f"a statement on {self.label} was stopped after statement_timeout="
            f"{seconds} s: {shorten(sql)}; {rolled_back}make it shorter, or raise "
            "statement_timeout (of the engine, or in execution_options of this statement)"
        )


class ConnectionState(NamedTuple):
    """How a connection stands before a statement."""

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
    """What becomes of a statement; without the turn, ``plan`` is for when it has it."""

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
    """The parameters are the fields of :class:`ConnectionState`, and those of :func:`plan`."""
    state = ConnectionState(role, swap_in, has_turn, autocommit, in_transaction)
    waits = needs_turn(kind, state)
    if waits:
        state = state._replace(has_turn=True)
    return Decision(is_refused(kind, state), waits, plan(kind, state, atomic=atomic))


def needs_turn(kind: Kind, state: ConnectionState) -> bool:
    """Return whether the write turn must be taken first."""
    if state.has_turn or state.role is Role.READER:
        return False
    if kind is Kind.BEGIN:
        return state.role is Role.WRITER
    if state.autocommit or state.role is Role.AUTO:
        return kind.writes
    return kind.writes or kind.opens_transaction


def is_refused(kind: Kind, state: ConnectionState) -> bool:
    """Return whether a reader may not even try.

    What else it must not do SQLite refuses by itself: the connection is read-only. These pass by
    that: VACUUM INTO writes another file, a checkpoint moves the log, and BEGIN IMMEDIATE on a
    read-only connection begins to read and says nothing. A swap-in connection is read-only for the
    time of its role, and what is attached to it stays.
    """
    if state.role is not Role.READER:
        return False
    if kind is Kind.BEGIN_WRITE or kind is Kind.MAINTENANCE:
        return True
    return state.swap_in and kind is Kind.ATTACH


def plan(kind: Kind, state: ConnectionState, *, atomic: bool) -> Plan:
    """The way to execute a statement of this kind; ``atomic``: all or nothing in AUTOCOMMIT too."""
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
        return Access.EXAMINED  # compiled and not run, even if what it explains would write
    if state.role is Role.READER:
        return Access.READER
    return Access.NO_WRITES if state.swap_in and not state.has_turn else Access.ALL


def _begin(kind: Kind, role: Role) -> str | None:
    if role is Role.AUTO:  # it reads without a transaction, as the stock driver does
        return _BEGIN_OF_SWAP_IN.get(kind)
    if role is Role.WRITER:
        return "BEGIN IMMEDIATE" if kind.opens_transaction else None
    return "BEGIN" if kind.opens_transaction else None


# "The defer_foreign_keys pragma is automatically switched off at each COMMIT or ROLLBACK. Hence,
# the defer_foreign_keys pragma must be separately enabled for each transaction":
# https://www.sqlite.org/pragma.html#pragma_defer_foreign_keys. It is set for a transaction that
# writes, and any read outside of it would be such a COMMIT.
_BEGIN_OF_SWAP_IN = {
    Kind.WRITE: "BEGIN IMMEDIATE",
    Kind.DEFERRAL: "BEGIN IMMEDIATE",
    Kind.TEMP_DML: "BEGIN",
}

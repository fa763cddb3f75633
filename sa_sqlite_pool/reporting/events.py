"""All events that the package logs, to the logger ``sa_sqlite_pool``, with their levels and fields.

A record's text is for people. Its attributes are for programs: ``event`` is the name of the event,
which stays the same in later versions, and each field is an attribute. The values are plain, so any
formatter can write them as JSON. ``docs/logging.md`` has the same table, in the same order.

An event is created, logged and discarded. So, of the methods of a dataclass, it has ``__init__()``
alone: generating the others would add 10 ms to the import of the package.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from dataclasses import dataclass, fields
from typing import ClassVar, TypedDict

logger = logging.getLogger("sa_sqlite_pool")

Field = str | int | float | bool | list[str] | None


@dataclass(kw_only=True, eq=False, repr=False)
class Event:
    """An event of one ``database``, given by file name; each class fixes ``name`` and ``level``."""

    name: ClassVar[str]
    level: ClassVar[int] = logging.WARNING

    database: str

    def extra(self) -> dict[str, Field]:
        """Return the attributes of the record."""
        found: dict[str, Field] = {"event": self.name}
        for field in fields(self):
            found[field.name] = getattr(self, field.name)
        return found


def log(event: Event, message: str, *args: object, error: BaseException | None = None) -> None:
    """Log ``event``, with ``message % args`` as its text and the traceback of ``error``, if any.

    Handlers of the application run within this call, so do not call it with a lock held, nor where
    the garbage collector may call it. An exception that a handler or filter raises is printed, as
    by ``logging.Handler.handleError``, and not propagated: it would end a checkout that has just
    acquired its permit.
    """
    if not logger.isEnabledFor(event.level):
        return
    try:
        # The record names the caller, as if it had called the logger itself.
        logger.log(event.level, message, *args, exc_info=error, stacklevel=2, extra=_extra(event))
    except Exception:
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(Exception):  # stderr may be closed, too, like the handler's
                traceback.print_exc()


def _extra(event: Event) -> dict[str, Field]:
    """Return the attributes of its record, except those that the application's factory sets.

    ``logging`` refuses to create a record in which these would be overwritten.
    """
    found, factory = event.extra(), logging.getLogRecordFactory()
    if factory is not logging.LogRecord:
        own = vars(factory(logger.name, event.level, "", 0, "", (), None))
        found = {name: value for name, value in found.items() if name not in own}
    return found


class HolderFields(TypedDict):
    """What is known about a task: its name, and the line at which it requested what it holds.

    Also the line at which it is now, and its last statement, shortened. Each may be unknown.
    """

    task: str | None
    asked_at: str | None
    now_at: str | None
    sql: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class _OfHolder(Event):
    """An event about a task that holds something, with :class:`HolderFields`."""

    task: str | None
    asked_at: str | None
    now_at: str | None
    sql: str | None


# -- tasks that wait, and tasks that others wait for -----------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class IdleTransaction(_OfHolder):
    """A transaction has been idle for ``idle_warning`` seconds. Logged once per checkout."""

    name = "idle_transaction"

    seconds_idle: float
    has_turn: bool
    waiting: int


@dataclass(kw_only=True, eq=False, repr=False)
class SlowWait(Event):
    """A wait took ``slow_wait_warning`` seconds or longer. Logged once per code line and minute."""

    name = "slow_wait"

    task: str | None
    asked_at: str | None
    waited_for: str
    seconds_waited: float
    held_by: str
    outcome: str
    left_out: int


@dataclass(kw_only=True, eq=False, repr=False)
class SlowStatement(Event):
    """A statement ran for ``slow_statement_warning`` seconds or more. Once per text and minute."""

    name = "slow_statement"

    task: str | None
    asked_at: str | None
    sql: str
    seconds_run: float
    left_out: int


# -- actions of the application --------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class SchemaChangeUndone(Event):
    """A schema change that the stock driver would commit was rolled back. Once per engine."""

    name = "schema_change_undone"

    change: str


@dataclass(kw_only=True, eq=False, repr=False)
class ForeignKeysRefused(Event):
    """``PRAGMA foreign_keys`` on a raw connection was refused inside a transaction."""

    name = "foreign_keys_refused"
    level = logging.ERROR

    value: str


@dataclass(kw_only=True, eq=False, repr=False)
class TimeoutNotUsed(Event):
    """``timeout`` in ``connect_args`` has no effect. Logged once per engine."""

    name = "timeout_not_used"

    timeout: str
    seconds_to_write: float
    seconds_to_read: float


# -- the write-ahead log ---------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class LogCannotShrink(_OfHolder):
    """A read transaction prevents the log from shrinking. Logged once per transaction."""

    name = "log_cannot_shrink"

    log_bytes: int
    seconds_open: float
    declared_long: bool


@dataclass(kw_only=True, eq=False, repr=False)
class ReadEnded(_OfHolder):
    """A read transaction older than ``max_snapshot_age`` was ended."""

    name = "read_ended"

    log_bytes: int
    seconds_open: float


@dataclass(kw_only=True, eq=False, repr=False)
class CheckpointHeldBack(Event):
    """No known reader of this process blocks the log's truncation. Once until it succeeds."""

    name = "checkpoint_held_back"

    held_back_by: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class CheckpointFailed(Event):
    """A checkpoint failed; no data is lost. Logged once until a checkpoint succeeds."""

    name = "checkpoint_failed"

    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class DatabaseReplaced(Event):
    """The file was deleted, moved or replaced while in use. Once until a checkpoint succeeds."""

    name = "database_replaced"

    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class LogLookFailed(Event):
    """An unexpected error occurred while the log was examined; logged with its traceback."""

    name = "log_look_failed"
    level = logging.ERROR

    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class LogDeleted(Event):
    """Another program deleted the log while it was in use. Logged once."""

    name = "log_deleted"


@dataclass(kw_only=True, eq=False, repr=False)
class JournalModeChanged(Event):
    """The database is no longer in WAL mode. Logged once."""

    name = "journal_mode_changed"

    journal_mode: str


@dataclass(kw_only=True, eq=False, repr=False)
class OtherWriters(Event):
    """Other programs write, in which case this SQLite version can lose commits. Logged once."""

    name = "other_writers"

    processes: list[str]
    sqlite_version: str


# -- files -----------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class TurnNotLocked(Event):
    """The lock file on which processes wait in line cannot be locked. Logged once.

    Logged once more if no file descriptor is left to open it, which may be temporary.
    """

    name = "turn_not_locked"

    file: str
    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class DoubtfulLocks(Event):
    """The database is in a place where file locks may fail. Logged once per file."""

    name = "doubtful_locks"

    mount: str


@dataclass(kw_only=True, eq=False, repr=False)
class MountedAlone(Event):
    """The database file itself is a mount point, without its log. Logged once per file."""

    name = "mounted_alone"

    mount_point: str


@dataclass(kw_only=True, eq=False, repr=False)
class DamagedDatabaseKept(Event):
    """``restore()`` has replaced a damaged database with a backup; the damaged file is kept."""

    name = "damaged_database_kept"

    kept_as: str


# -- observers of the package ---------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class ObserverFailed(Event):
    """An observer that records waits, for traces and histograms, failed. Logged each time."""

    name = "observer_failed"


@dataclass(kw_only=True, eq=False, repr=False)
class StatisticsFailed(Event):
    """The live page cannot show a database. Logged again if it could in the meantime."""

    name = "statistics_failed"
    level = logging.ERROR

    error: str


# -- servers ---------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class ReplicaDown(Event):
    """A replica does not respond; reads go to other servers. Once until it responds again."""

    name = "replica_down"

    server: str
    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class ReplicaUp(Event):
    """A replica that was down responds again."""

    name = "replica_up"
    level = logging.INFO

    server: str


@dataclass(kw_only=True, eq=False, repr=False)
class CommitCancelled(Event):
    """A COMMIT was cancelled; the message says whether its outcome is known."""

    name = "commit_cancelled"

    server: str

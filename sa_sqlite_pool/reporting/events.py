"""All events that the package logs, to the logger ``sa_sqlite_pool``, with their levels and fields.

A record's text is for people. Its attributes are for programs: ``event`` is the name of the event,
which stays the same in later versions, and each field has an attribute of its name. The values are
plain, so that any formatter can write them as JSON. ``docs/logging.md`` has the same table, in the
order of this file.

An event is made, logged and forgotten. So of a dataclass's methods it has ``__init__()`` alone: the
others would take 10 ms of the import of the package.
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
    """An event of one ``database``, by the name of its file; ``name`` and ``level`` are fixed."""

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

    Handlers of the application run in here, so call it with no lock held, and not where the garbage
    collector may call. What a handler or filter raises is shown as ``logging.Handler.handleError``
    shows it, and goes no further: it would end a checkout that has just been given its permit.
    """
    if not logger.isEnabledFor(event.level):
        return
    try:
        # The record names the caller, as if it had called the logger itself.
        logger.log(event.level, message, *args, exc_info=error, stacklevel=2, extra=_extra(event))
    except Exception:
        if logging.raiseExceptions and sys.stderr is not None:
            with contextlib.suppress(Exception):  # it may be closed, too, as that of the handler
                traceback.print_exc()


def _extra(event: Event) -> dict[str, Field]:
    """Return the attributes of its record, without those that the application's factory sets.

    ``logging`` refuses to make a record in which they would be overwritten.
    """
    found, factory = event.extra(), logging.getLogRecordFactory()
    if factory is not logging.LogRecord:
        own = vars(factory(logger.name, event.level, "", 0, "", (), None))
        found = {name: value for name, value in found.items() if name not in own}
    return found


class HolderFields(TypedDict):
    """What is known of a task: its name, and the line at which it asked for what it holds.

    And the line at which it is now, and its last statement, shortened. Each may be unknown.
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


# -- tasks that wait, and that others wait for -----------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class IdleTransaction(_OfHolder):
    """A transaction sits idle for ``idle_warning`` seconds. Once a checkout."""

    name = "idle_transaction"

    seconds_idle: float
    has_turn: bool
    waiting: int


@dataclass(kw_only=True, eq=False, repr=False)
class SlowWait(Event):
    """A wait has taken ``slow_wait_warning`` seconds or longer. Once a line of code and minute."""

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
    """A statement ran ``slow_statement_warning`` seconds or longer. Once a text and minute."""

    name = "slow_statement"

    task: str | None
    asked_at: str | None
    sql: str
    seconds_run: float
    left_out: int


# -- what the application has done -----------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class SchemaChangeUndone(Event):
    """A change of the schema that the stock driver commits was rolled back. Once an engine."""

    name = "schema_change_undone"

    change: str


@dataclass(kw_only=True, eq=False, repr=False)
class ForeignKeysRefused(Event):
    """``PRAGMA foreign_keys`` on a raw connection was refused within a transaction."""

    name = "foreign_keys_refused"
    level = logging.ERROR

    value: str


@dataclass(kw_only=True, eq=False, repr=False)
class TimeoutNotUsed(Event):
    """``timeout`` of ``connect_args`` has no effect. Once an engine."""

    name = "timeout_not_used"

    timeout: str
    seconds_to_write: float
    seconds_to_read: float


# -- the write-ahead log ---------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class LogCannotShrink(_OfHolder):
    """A read transaction keeps the log from shrinking. Once a transaction."""

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
    """No reader of this process keeps the log from being truncated. Once until it succeeds."""

    name = "checkpoint_held_back"

    held_back_by: str | None


@dataclass(kw_only=True, eq=False, repr=False)
class CheckpointFailed(Event):
    """A checkpoint failed; nothing is lost. Once until one succeeds."""

    name = "checkpoint_failed"

    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class DatabaseReplaced(Event):
    """The file was deleted, moved or replaced while in use. Once until a checkpoint succeeds."""

    name = "database_replaced"

    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class LogLookFailed(Event):
    """An unexpected error while the log was examined, with its traceback."""

    name = "log_look_failed"
    level = logging.ERROR

    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class LogDeleted(Event):
    """Another program has deleted the log while it was in use. Once."""

    name = "log_deleted"


@dataclass(kw_only=True, eq=False, repr=False)
class JournalModeChanged(Event):
    """The database is not in WAL mode any more. Once."""

    name = "journal_mode_changed"

    journal_mode: str


@dataclass(kw_only=True, eq=False, repr=False)
class OtherWriters(Event):
    """Other programs write, and this SQLite can lose commits then. Once."""

    name = "other_writers"

    processes: list[str]
    sqlite_version: str


# -- files -----------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class TurnNotLocked(Event):
    """The file by which processes line up cannot be locked. Once.

    And once if no descriptor is left to open it, which may pass.
    """

    name = "turn_not_locked"

    file: str
    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class DoubtfulLocks(Event):
    """The database is where file locks may fail. Once a file."""

    name = "doubtful_locks"

    mount: str


@dataclass(kw_only=True, eq=False, repr=False)
class MountedAlone(Event):
    """The database is mounted by itself, without its log. Once a file."""

    name = "mounted_alone"

    mount_point: str


@dataclass(kw_only=True, eq=False, repr=False)
class DamagedDatabaseKept(Event):
    """``restore()`` has put a backup in the place of a damaged database, which is kept."""

    name = "damaged_database_kept"

    kept_as: str


# -- what watches the package ---------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class ObserverFailed(Event):
    """What records waits, for traces and histograms, has failed. Each time."""

    name = "observer_failed"


@dataclass(kw_only=True, eq=False, repr=False)
class StatisticsFailed(Event):
    """The live page cannot show a database. Again once it could."""

    name = "statistics_failed"
    level = logging.ERROR

    error: str


# -- servers ---------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False, repr=False)
class ReplicaDown(Event):
    """A replica does not answer; reads go elsewhere. Once until it answers again."""

    name = "replica_down"

    server: str
    error: str


@dataclass(kw_only=True, eq=False, repr=False)
class ReplicaUp(Event):
    """A replica that was down answers again."""

    name = "replica_up"
    level = logging.INFO

    server: str


@dataclass(kw_only=True, eq=False, repr=False)
class CommitCancelled(Event):
    """A COMMIT was cancelled; the text says whether its outcome is known."""

    name = "commit_cancelled"

    server: str

"""The warnings that the keeper sends to the logger ``sa_sqlite_pool``, each of them once."""

from __future__ import annotations

import sqlite3
from typing import final

from ..files.open_files import FileReplacedError
from ..reporting.events import (
    CheckpointFailed,
    CheckpointHeldBack,
    DatabaseReplaced,
    Event,
    JournalModeChanged,
    LogCannotShrink,
    LogDeleted,
    LogLookFailed,
    OtherWriters,
    ReadEnded,
    log,
)
from ..sqlite.inspection import ask
from ..stats.log import Checkpoint
from ..system.clock import time
from ..turn.snapshots import Snapshot
from .reset_bug import FIXED_VERSIONS, has_reset_bug

_MIB = 1024 * 1024


@final
class WalWarnings:
    """The warnings about the log of one database, whose name is ``label``."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._said: set[str] = set()

    def stays(self, snapshot: Snapshot, used: int) -> None:
        """Warn of a read transaction that keeps the log from shrinking."""
        if snapshot.reported:
            return
        snapshot.reported = True
        remedy = (
            "it was declared long, so it continues"
            if snapshot.long
            else "end read transactions sooner, or set max_snapshot_age"
        )
        now, permit = time.monotonic(), snapshot.permit
        log(
            LogCannotShrink(
                database=self._label,
                log_bytes=used,
                seconds_open=now - snapshot.since,
                declared_long=snapshot.long,
                **permit.fields(),
            ),
            "the log of %s is %.1f MiB and cannot shrink: a read transaction has been held open "
            "for %s, requested at %s; %s",
            *(self._label, used / _MIB, snapshot.describe(now), permit.asked_at, remedy),
        )

    def ended(self, snapshot: Snapshot, used: int) -> None:
        """Warn of a read transaction that was ended because of its age."""
        now, permit = time.monotonic(), snapshot.permit
        log(
            ReadEnded(
                database=self._label,
                log_bytes=used,
                seconds_open=now - snapshot.since,
                **permit.fields(),
            ),
            "the log of %s is %.1f MiB; ended a read transaction that was older than "
            "max_snapshot_age: held open for %s, requested at %s",
            *(self._label, used / _MIB, snapshot.describe(now), permit.asked_at),
        )

    def held_back_outside(self, result: Checkpoint) -> None:
        """Warn of a checkpoint that was held back, though not by a known reader of this process."""
        self._once(
            CheckpointHeldBack(database=self._label, held_back_by=result.held_back_by),
            f"the log of {self._label} cannot be truncated, although no reader of this process is "
            f"in the way: {result.held_back_by}; end its transaction",
        )

    def failed(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__  # a MemoryError has no message
        self._once(
            CheckpointFailed(database=self._label, error=reason),
            f"a checkpoint of {self._label} failed ({reason}); no committed data is lost, and the "
            "checkpoint will be retried; free space on the disk, or fix the cause that the error "
            "names",
        )

    def replaced(self, error: FileReplacedError) -> None:
        """Warn that the database's path now names another file, or none."""
        self._once(DatabaseReplaced(database=self._label, error=str(error)), str(error))

    def look_failed(self, error: Exception) -> None:
        """Log an unexpected error."""
        event = LogLookFailed(database=self._label, error=str(error))
        log(event, "inspecting the log of %s failed", self._label, error=error)

    def no_log(self, connection: sqlite3.Connection) -> None:
        """Warn that there is no log after a commit."""
        if not self._said.isdisjoint({LogDeleted.name, JournalModeChanged.name}):
            return
        mode = ask(connection, "journal_mode")
        if mode == "wal":
            self.log_deleted()
        else:
            self._once(
                JournalModeChanged(database=self._label, journal_mode=str(mode)),
                f"journal_mode of {self._label} was changed to {mode}, so readers and writers "
                "block each other; it is switched back when the writer's connection is reopened",
            )

    def log_deleted(self) -> None:
        """Warn that a commit went to a log that is no longer beside the database."""
        self._once(
            LogDeleted(database=self._label),
            f"the log of {self._label} was deleted by another program while it was in use: "
            "commits made since then may be lost; stop all programs that use the database, "
            "make a copy of it, and check it",
        )

    def outside_writers(self, names: list[str]) -> None:
        """Warn of processes outside this package that write, if this SQLite can lose commits."""
        if has_reset_bug(sqlite3.sqlite_version_info):
            version = sqlite3.sqlite_version
            self._once(
                OtherWriters(database=self._label, processes=list(names), sqlite_version=version),
                f"{self._label} is also written by another program, {', '.join(names)}; SQLite "
                f"{version} can lose commits when several programs write and checkpoint at the "
                "same instant (https://www.sqlite.org/wal.html#walresetbug): use SQLite "
                f"{FIXED_VERSIONS} in every program that opens the file",
            )

    def succeeded(self) -> None:
        """Note a success, so that the next checkpoint that fails causes a warning again."""
        self._said -= {CheckpointFailed.name, DatabaseReplaced.name}

    def truncated(self) -> None:
        self._said.discard(CheckpointHeldBack.name)

    def _once(self, event: Event, message: str) -> None:
        if event.name not in self._said:
            self._said.add(event.name)
            log(event, "%s", message)

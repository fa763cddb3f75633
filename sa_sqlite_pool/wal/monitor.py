"""The monitor, which measures a log after each commit, in the thread of that commit."""

from __future__ import annotations

import os
import sqlite3
from typing import final

from ..files.location import Location
from ..files.log_file import LogSize, measure
from ..files.neighbours import Presence
from ..files.open_files import FileReplacedError, open_files
from ..settings import DEFAULT_WAL_SETTINGS
from ..system.clock import time
from ..turn.snapshots import Snapshot, Snapshots
from .one_checkpoint import move_after_commit
from .policy import Action, Situation, decide, just_checked
from .wal_warnings import WalWarnings

# Measuring a log that is in use takes some twenty small reads, too many for every commit.
_MEASURE_SECONDS = 0.005

# A file's modification time is that of the last tick of the clock of the kernel or a file server: a
# file that changed within so many nanoseconds may change again without a new modification time.
_RECENT_NS = 50_000_000


@final
class WalMonitor:
    """The monitor of the log of one database file; only :meth:`catch_up` changes the file.

    ``committed_at`` is the time of the last commit of this process, ``checked`` the size of the log
    at the last checkpoint. ``known_quiet`` means that :meth:`is_quiet` was True before this commit,
    which may then run on the loop. Until ``no_gap_until``, a gap between readers would be in vain.
    Times are monotonic seconds.
    """

    def __init__(self, location: Location, snapshots: Snapshots, warnings: WalWarnings) -> None:
        assert location.file is not None
        self.settings = DEFAULT_WAL_SETTINGS
        self.committed_at = 0.0
        self.checked = LogSize()
        self.no_gap_until = 0.0
        self._location = location
        self._database = location.file
        self._path = f"{location.file}-wal"
        self.presence = Presence(self._path)
        self._snapshots = snapshots
        self._warnings = warnings
        self._measured_at = 0.0
        self._size: int | None = None  # after the last commit
        self.known_quiet = False
        self._moved_ns: int | None = None
        self._inode: int | None = None  # of the database
        self._log_inode: int | None = None

    # A checkpoint moves pages into the database, and so changes its modification time. The first
    # commit after a checkpoint that moved everything restarts the log, and syncs it even with
    # synchronous=NORMAL (`sqlite3WalFrames()` in SQLite's wal.c).

    def committed(self, size: int | None) -> None:
        """Record a commit: the size of the log, and the modification time of the database."""
        self.committed_at = time.monotonic()
        self._size = size
        if self.known_quiet:  # a moment ago
            self.known_quiet = False
            return
        moved_ns = self._database_changed_ns()
        recent = moved_ns is None or time.time_ns() - moved_ns < _RECENT_NS
        self._moved_ns = None if recent else moved_ns

    def is_quiet(self) -> bool:
        """Return whether no checkpoint has run since the last commit, and none is due.

        If so, the log may be measured on the loop after a commit: this takes twenty reads, of data
        that is in memory because it was written a moment ago.
        """
        size, soft = self._size, self.settings.soft_limit
        self.known_quiet = (
            self._moved_ns is not None
            and soft is not None
            and size is not None
            and (size < soft or not self._is_larger_than_all(size))
            and self._database_changed_ns() == self._moved_ns
            and self._log_is_in_place()
        )
        return self.known_quiet

    def _is_larger_than_all(self, size: int) -> bool:
        largest = self.settings.largest
        return largest is not None and size >= largest

    def _database_changed_ns(self) -> int | None:
        try:
            found = os.stat(self._database)
        except OSError:
            if self._inode is not None:
                self._is_in_place(None)
            return None
        if found.st_ino != self._inode and not self._is_in_place(found.st_ino):
            return None  # so a COMMIT does not run on the loop, but in its thread, and is refused
        return found.st_mtime_ns

    def _log_is_in_place(self) -> bool:
        """Return False where the log was deleted: the COMMIT is refused then, in its thread."""
        try:
            return os.stat(self._path).st_ino == self._log_inode
        except OSError:
            return False

    def _is_lost(self) -> bool:
        """Warn of another log in the place of the one that this process writes to."""
        lost = open_files.has_lost_log(self._database)
        if lost:
            self._warnings.log_deleted()
        return lost

    def _is_in_place(self, inode: int | None) -> bool:
        """Warn of a replaced file at once; the next checkpoint would notice, but may never run."""
        try:
            open_files.assert_in_place(self._database)
        except FileReplacedError as error:
            self._warnings.replaced(error)
            return False
        self._inode = inode
        return True

    def is_large(self) -> bool:
        """Return whether the file has reached the soft limit."""
        soft, size = self.settings.soft_limit, self.size()
        return soft is not None and size is not None and size >= soft

    def size(self) -> int | None:
        """Return the file's size in bytes, None if it does not exist; show that it is in use."""
        try:
            log = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            self.presence.hide()  # its last user has removed it
            self._log_inode = None
            return None
        except OSError:  # not accessible, for example because the process has dropped privileges
            return self._size or 0
        if log.st_ino != self.presence.inode and not self._is_lost():
            self._log_inode = log.st_ino
            self.note_log()
            self.presence.show(log.st_ino)
        return log.st_size

    def note_log(self) -> None:
        """Note the log that connections of this process use, to notice its loss."""
        open_files.note_log(self._database)

    def measure(self) -> LogSize:
        return measure(self._path)

    def look(self) -> Action:
        """Return the action that a large log requires; WAIT if it was measured a moment ago."""
        now = time.monotonic()
        if now - self._measured_at < _MEASURE_SECONDS:
            return Action.WAIT
        self._measured_at = now
        return decide(self.situation(), self.settings)

    def situation(self, *, idle: bool = False) -> Situation:
        log = measure(self._path)
        checked_at = self.checked.used if self.checked.salts == log.salts else 0
        return Situation(log, idle, checked_at, self._pinned(time.monotonic()))

    def _pinned(self, now: float) -> bool:
        return now < self.no_gap_until or any(
            snapshot.stays and not self.is_too_old(snapshot, now) for snapshot in self._snapshots
        )

    def is_too_old(self, snapshot: Snapshot, now: float) -> bool:
        longest = self.settings.max_snapshot_age
        return longest is not None and not snapshot.long and now - snapshot.since >= longest

    def catch_up(self, connection: sqlite3.Connection) -> None:
        """Move the log right after a commit, if the keeper has had no opportunity to do so.

        For example, one task may keep the turn for thousands of commits.
        """
        situation, largest = self.situation(), self.settings.largest
        if largest is None or situation.log.used < largest:
            return
        if just_checked(situation, self.settings):
            return
        self.checked = situation.log
        try:
            move_after_commit(connection, self._location)
        except FileReplacedError as error:
            self._warnings.replaced(error)
        except sqlite3.Error as error:  # the commit has succeeded, whether or not this fails
            self._warnings.failed(error)

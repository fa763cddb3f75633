"""The keeper of a database file's log, shared by all engines of the process.

The keeper has no thread and no task while there is nothing to do. Connections report commits to it
in their own threads; it measures the log there, which costs a few microseconds. When something is
due, it starts a task that opens two connections, takes the action that :mod:`.policy` selects,
closes them and ends. Above the soft limit, a timer waits for a quiet moment.
"""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from concurrent.futures import Future
from contextvars import Context
from dataclasses import replace
from typing import final

from ..compat.background import start_task
from ..errors import SnapshotTooOldError, WriteTimeout
from ..files.location import Location
from ..files.log_file import LogSize
from ..files.open_files import FileReplacedError
from ..settings import ConnectionSettings, WalSettings
from ..stats.log import (
    Checkpoint,
    CheckpointMode,
    CheckpointOutcome,
    WalStatistics,
)
from ..system.clock import call_later, time
from ..system.forks import renew_after_fork
from ..system.loop_state import call_unless_closed
from ..system.waiting import done_in_time
from ..turn.snapshots import Snapshot, Snapshots
from ..turn.write_turn import WriteTurn
from .checkpointing import Checkpointing
from .monitor import WalMonitor
from .policy import Action, Situation, decide, too_large
from .reset_bug import has_reset_bug
from .wal_warnings import WalWarnings

# After so many seconds without a commit, the database counts as quiet.
QUIET_SECONDS = 0.1

# The longest pause between two attempts while something is in the way.
_LONGEST_PAUSE_SECONDS = 10.0

# How long the keeper waits for the turn, and then for SQLite's lock while it holds the turn.
_TURN_SECONDS = 60.0
_LOCK_SECONDS = 0.5

# How often tidy_up() checks that the loop that does its work is still running.
_LOOK_SECONDS = 0.5

# How long stop() waits for a checkpoint, which cannot be interrupted during a sync.
_STOP_SECONDS = 5.0

# A timer that is late by more than this has died with its loop.
_TIMER_LOST_SECONDS = 1.0


@final
class _Pause:
    """The seconds before the next attempt; they double each time that something is in the way."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = QUIET_SECONDS

    def longer(self) -> float:
        self.seconds = min(2 * self.seconds, _LONGEST_PAUSE_SECONDS)
        return self.seconds

    def over(self) -> None:
        self.seconds = QUIET_SECONDS


@final
class WalKeeper:
    """Keeps one database file's log within its limits; a part of :class:`.DatabaseFile`.

    ``settings`` are those of the writing engine that was created last. ``due`` is the action that
    is due, or None.
    """

    def __init__(self, location: Location, turn: WriteTurn, snapshots: Snapshots) -> None:
        self.snapshots = snapshots
        self.warnings = WalWarnings(location.label)
        self.monitor = WalMonitor(location, self.snapshots, self.warnings)
        self.is_quiet = self.monitor.is_quiet
        self.checkpointing = Checkpointing(location, turn, self.snapshots)
        self._label = location.label
        self._turn = turn
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Forget the task and the timer, which belong to the parent process."""
        self.due: Action | None = None
        self._task: asyncio.Future[None] | None = None
        self._ended: Future[None] = Future()
        self._timer_at: float | None = None
        self._pause = _Pause()
        self._gap_pause = _Pause()
        self._rest_until = 0.0  # set after an error

    def __repr__(self) -> str:
        status = "nothing due" if self.due is None else f"{self.due.name.lower()} due"
        return f"<WalKeeper {self._label}, {status}>"

    def configure(self, settings: ConnectionSettings) -> None:
        """Adopt the settings of an engine that writes."""
        self.monitor.settings = settings.wal
        self.checkpointing.pragmas = settings.pragmas

    # -- called by connections, in their threads ------------------------------------------------

    @property
    def keeps(self) -> bool:
        return self.settings.soft_limit is not None

    @property
    def settings(self) -> WalSettings:
        return self.monitor.settings

    def connection_opened(self) -> None:
        """Check, when a connection is opened, whether an earlier process has left a large log."""
        self.monitor.note_log()
        if self.monitor.is_large():
            self._note_what_is_due()

    # The commit has succeeded by then: an error here must not be mistaken for its failure.

    def relieve(self, connection: sqlite3.Connection) -> int | None:
        """Move a log that has reached the ``largest`` size, right after a commit, in its turn.

        Return the size of the log in bytes, None if it was not measured.
        """
        if self.monitor.known_quiet:  # this may be the loop: leave it to the next commit
            return None
        try:
            return self._relieve(connection)
        except Exception as error:
            self.warnings.look_failed(error)
            return None

    def _relieve(self, connection: sqlite3.Connection) -> int | None:
        largest, size = self.settings.largest, self.monitor.size()
        if largest is None or size is None or size < largest:
            return size
        self._note_what_is_due()  # first, because after a checkpoint nothing would seem to be due
        self.checkpointing.hurry()
        self.monitor.catch_up(connection)
        return self.monitor.size()

    def look(self, connection: sqlite3.Connection, size: int | None = None) -> None:
        """Check whether the log has grown too large, right after a commit and in its thread.

        ``size`` is the return value of :meth:`relieve`.
        """
        monitor = self.monitor
        try:
            if size is None:
                size = monitor.size()
            monitor.committed(size)
            if size is None:
                self.warnings.no_log(connection)
                return
            soft = monitor.settings.soft_limit
            if soft is not None and size >= soft:
                self._note_what_is_due()
                largest = monitor.settings.largest
                if largest is not None and size >= largest:
                    self.checkpointing.hurry()
        except Exception as error:
            self.warnings.look_failed(error)

    def _note_what_is_due(self) -> None:
        """Set ``due``, for the loop to start, unless that is under way or was tried just now."""
        if self._task_runs() or time.monotonic() < self._rest_until:
            return
        action = self.monitor.look()
        if action is Action.WAIT and (self.due is not None or self._timer_runs()):
            return
        self.due = action

    def _task_runs(self) -> bool:
        task = self._task
        return task is not None and not task.done() and not task.get_loop().is_closed()

    def _timer_runs(self) -> bool:
        at = self._timer_at
        return at is not None and time.monotonic() <= at + _TIMER_LOST_SECONDS

    def meet_busy(self) -> None:
        self.checkpointing.meet_busy()
        if self.checkpointing.outside_writers:
            self.warnings.outside_writers(self.checkpointing.outside_writers)

    # -- in a loop ------------------------------------------------------------------------------

    def attend(self) -> None:
        """Start the action that is due, in the running loop."""
        due, self.due = self.due, None
        if due is Action.WAIT:
            self._look_again(QUIET_SECONDS)
        elif due is not None and not self._task_runs():
            self._start(idle=False)

    def _look_again(self, seconds: float) -> None:
        self._timer_at = time.monotonic() + seconds
        # A weak reference, so that the timer does not keep an unused keeper alive.
        loop, at = asyncio.get_running_loop(), self._timer_at
        call_later(loop, seconds, _timer, weakref.ref(self), at, context=Context())

    def look_in_quiet(self, armed_for: float) -> None:
        """Start if there was no commit for a moment; else set the timer again. It calls this."""
        if self._timer_at != armed_for:
            return  # another timer has replaced this one
        self._timer_at = None
        quiet = time.monotonic() - self.monitor.committed_at
        if quiet < QUIET_SECONDS or self._turn.locked() or self._task_runs():
            self._look_again(QUIET_SECONDS)
        else:
            self._start(idle=True)

    def _start(self, *, idle: bool) -> None:
        ended = self._ended = Future()
        task = start_task(self._work(idle=idle), f"WAL keeper of {self._label}")
        task.add_done_callback(lambda task: self._has_ended(task, ended))
        self._task = task

    def _has_ended(self, task: asyncio.Future[None], ended: Future[None]) -> None:
        if self._task is task:
            self._task = None
        ended.set_result(None)

    async def _work(self, *, idle: bool) -> None:
        """The task: do what is due, and after an error, or if the log stays large, look again."""
        still_large = True
        try:
            still_large = await self._do_what_is_due(idle=idle)
        except WriteTimeout:  # a writer does not end; the tasks that wait for it report that
            self.monitor.no_gap_until = time.monotonic() + self._pause.longer()
        except FileReplacedError as error:
            self._rest_until = time.monotonic() + self._pause.longer()
            self.warnings.replaced(error)
        except Exception as error:  # of SQLite or the system, or no memory or thread is available
            self._rest_until = time.monotonic() + self._pause.longer()
            still_large = self.monitor.size() is not None  # None: its last user has removed it
            if still_large and not self.checkpointing.closed_for_fork:
                self.warnings.failed(error)
        if still_large:
            self._look_again(self._pause.seconds)

    async def _do_what_is_due(self, *, idle: bool) -> bool:
        """Do what is due; return whether the file is still above the soft limit afterwards."""
        async with self.checkpointing.connected():
            situation = await self.checkpointing.in_thread(
                lambda: self.monitor.situation(idle=idle)
            )
            action = decide(situation, self.settings)
            if action is Action.NOTHING:
                return False
            if action is not Action.WAIT:
                self._warn_or_end_readers(situation)
                self._note_outcome(action, await self._act(action, situation), situation)
            return await self.checkpointing.in_thread(self.monitor.is_large)

    async def _act(self, action: Action, situation: Situation) -> Checkpoint | None:
        if action is Action.TIDY:
            return await self.checkpointing.tidy()
        done = await self.checkpointing.move_gently(_TURN_SECONDS, _LOCK_SECONDS)
        if action is Action.GAP:
            return await self._gap(situation) or done
        return done

    def _warn_or_end_readers(self, situation: Situation) -> None:
        """At the hard limit, warn of readers that stay, and end readers that are too old."""
        hard = self.settings.hard_limit
        if hard is None or situation.log.used < hard:
            return
        now = time.monotonic()
        for snapshot in self.snapshots:
            if self.monitor.is_too_old(snapshot, now):
                if not snapshot.ends_early:
                    self._end_early(snapshot, situation, now)
            elif snapshot.stays:
                self.warnings.stays(snapshot, situation.log.used)

    def _end_early(self, snapshot: Snapshot, situation: Situation, now: float) -> None:
        age, used = now - snapshot.since, situation.log.used
        message = (
            f"this read transaction on {self._label} was {age:.1f} s old and kept its log "
            f"({used / 2**20:.0f} MiB) from shrinking, so it was ended "
            f"(max_snapshot_age={self.settings.max_snapshot_age} s); call rollback() and read "
            "again, in shorter transactions, or declare it long: db.read(long=True)"
        )
        self.warnings.ended(snapshot, used)
        snapshot.end_early(lambda: SnapshotTooOldError(message))

    async def _gap(self, situation: Situation) -> Checkpoint | None:
        """Truncate in a gap between readers; return None if some of them stayed."""
        done, left = await self.checkpointing.make_room(
            CheckpointMode.TRUNCATE,
            self.settings.reader_gap,
            _TURN_SECONDS,
            _LOCK_SECONDS,
            too_large=lambda: too_large(self.monitor.measure(), self.settings),
        )
        for snapshot in left:
            snapshot.outstayed = True
            self.warnings.stays(snapshot, situation.log.used)
        if done is None:
            return None
        if done.outcome is CheckpointOutcome.TRUNCATED:
            self._gap_pause.over()
        else:
            self.monitor.no_gap_until = time.monotonic() + self._gap_pause.longer()
        if done.outcome is CheckpointOutcome.HELD_BACK:
            self.warnings.held_back_outside(done)
        return done

    def _note_outcome(self, action: Action, done: Checkpoint | None, situation: Situation) -> None:
        if done is None:  # a writer held the turn
            return
        self.warnings.succeeded()
        if done.outcome is CheckpointOutcome.TRUNCATED:
            self.warnings.truncated()
        self.monitor.checked = LogSize(0, max(0, done.frames), situation.log.frame_size, done.salts)
        if action is Action.TIDY and done.outcome is not CheckpointOutcome.TRUNCATED:
            self._pause.longer()
        else:
            self._pause.over()

    # -- for the database -----------------------------------------------------------------------

    async def checkpoint(self, mode: CheckpointMode, timeout: float) -> Checkpoint:
        """Run a checkpoint now; see :meth:`sa_sqlite_pool.SQLiteDatabase.checkpoint`."""
        async with self.checkpointing.connected(timeout) as connected:
            if not connected:
                raise WriteTimeout(
                    f"waited {timeout:.2f} s for another checkpoint of {self._label} to end; "
                    "raise timeout, or leave checkpoints to the keeper"
                )
            done = await self.checkpointing.move(timeout, timeout)
            possible = done.outcome in {CheckpointOutcome.MOVED_ALL, CheckpointOutcome.HELD_BACK}
            if mode is CheckpointMode.PASSIVE or not possible:
                return replace(done, mode=mode)
            made, left = await self.checkpointing.make_room(
                mode, self.settings.reader_gap, timeout, timeout
            )
            if made is not None:
                return made
            who = left[0].describe(time.monotonic())
            return replace(done, mode=mode, outcome=CheckpointOutcome.HELD_BACK, held_back_by=who)

    async def tidy_up(self) -> None:
        """Truncate a large log that an earlier process has left, and wait until that is done."""
        if not self.monitor.is_large():
            return
        if not self._task_runs():
            self._start(idle=True)
        task, ended = self._task, self._ended
        # If another loop does the work, it may end without a notification.
        while not await done_in_time(ended, _LOOK_SECONDS):
            if task is not None and not task.get_loop().is_running():
                return

    async def stop(self) -> None:
        """Stop the task, and wait at most 5 s for its connections to close. Commits restart it."""
        self._timer_at = None
        task = self._task
        if task is None or not self._task_runs():
            return
        call_unless_closed(task.get_loop(), task.cancel)
        await done_in_time(self._ended, _STOP_SECONDS)

    def statistics(self) -> WalStatistics:
        """Return the state of the log; this reads a few bytes of the ``-wal`` file."""
        log, last = self.monitor.measure(), self.checkpointing.last
        return WalStatistics(
            size=log.size,
            frames=log.frames,
            checkpointed=last.moved if last is not None and last.salts == log.salts else 0,
            soft_limit=self.settings.soft_limit,
            limit=self.settings.hard_limit,
            last_checkpoint=last,
            held_back_by=None if last is None else last.held_back_by,
            oldest_reader=self.snapshots.statistics().oldest,
            sqlite_version=sqlite3.sqlite_version,
            reset_bug=has_reset_bug(sqlite3.sqlite_version_info),
            outside_writers=tuple(self.checkpointing.outside_writers),
        )


def _timer(reference: weakref.ref[WalKeeper], armed_for: float) -> None:
    keeper = reference()
    if keeper is not None:
        keeper.look_in_quiet(armed_for)

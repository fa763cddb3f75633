"""Who keeps the log of a database file small: one keeper for all engines of the process.

It has no thread and no task of its own as long as there is nothing to do. Connections tell it of
commits, in their own threads; it looks at the log there, which costs a few microseconds. When
something is due it starts a task, which opens two connections, does what :mod:`.policy` says,
closes them and ends. Above the soft limit a timer looks for a quiet moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import final

from ..driver.checkpoints import (
    Checkpoint,
    CheckpointMode,
    CheckpointOutcome,
    move_after_commit,
)
from ..driver.location import Location
from ..driver.log_file import LogSize, measure
from ..driver.reset_bug import has_reset_bug
from ..errors import SnapshotTooOldError, WriteTimeout
from ..forks import renew_after_fork
from ..settings import ConnectionSettings, WalSettings
from ..statistics import ReaderStatistics, WalStatistics
from ..turn.snapshots import Snapshot, Snapshots
from ..turn.write_turn import WriteTurn
from .checkpointing import Checkpointing
from .neighbours import Presence
from .policy import Action, Situation, decide, just_checked, too_large
from .reports import Reports

# Seconds without a commit that count as quiet.
QUIET_SECONDS = 0.1

# A log that is in use is measured by some twenty small reads: not after every commit.
_MEASURE_SECONDS = 0.005

# The longest pause between two tries where something is in the way.
_LONGEST_PAUSE_SECONDS = 10.0

# How long the keeper stands in line, and waits for SQLite's lock with the turn in its hand.
_TURN_SECONDS = 60.0
_LOCK_SECONDS = 0.5

# How long stopping waits for a checkpoint, which cannot be interrupted while it syncs.
_STOP_SECONDS = 5.0

# A timer that is so late has died with its loop.
_TIMER_LOST_SECONDS = 1.0


@final
class WalKeeper:
    """Keeps the log of one database file within its limits. Get it from :func:`wal_keeper`.

    ``settings`` are those of the engine that was made last, of those that write.
    """

    def __init__(self, location: Location, turn: WriteTurn) -> None:
        assert location.file is not None
        self.settings = WalSettings()
        self.snapshots = Snapshots()
        self.checkpointing = Checkpointing(location, turn, self.snapshots)
        self.reports = Reports(location.label)
        self._label = location.label
        self._location = location
        self._path = f"{location.file}-wal"
        self._presence = Presence(self._path)
        self._turn = turn
        self._committed_at = 0.0
        self._measured_at = 0.0
        self._checked = LogSize()  # at the last checkpoint
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Tasks and timers are the parent's."""
        self._due: Action | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: Future[None] = Future()
        self._timer_at: float | None = None
        self._pause = QUIET_SECONDS
        self._rest_until = 0.0  # after something went wrong
        self._no_gap_until = 0.0  # after one was in vain

    def serve(self, settings: ConnectionSettings) -> None:
        """Keep the log as an engine that writes wants it."""
        self.settings = settings.wal
        self.checkpointing.pragmas = settings.pragmas

    # -- what connections tell, in their threads ------------------------------------------------

    @property
    def keeps(self) -> bool:
        return self.settings.soft_limit is not None

    @property
    def due(self) -> bool:
        return self._due is not None

    def found(self) -> None:
        """See whether an earlier process has left a large log. When a connection is opened."""
        self._look()

    def look(self, connection: sqlite3.Connection) -> None:
        """See whether the log has grown too large. Right after a commit, by whoever made it."""
        self._committed_at = time.monotonic()
        size = self._look()
        largest = self.settings.largest
        if size is None:
            self.reports.no_log(connection)
        elif largest is not None and size >= largest:
            self._catch_up(connection, largest)

    def _look(self) -> int | None:
        """The size of the file; None if there is none."""
        try:
            log = os.stat(self._path)
        except OSError:
            return None
        self._presence.show(log.st_ino)
        soft, now = self.settings.soft_limit, time.monotonic()
        if soft is not None and log.st_size >= soft and not self._on_duty(now):
            self._look_closely(now)
        return log.st_size

    def _catch_up(self, connection: sqlite3.Connection, largest: int) -> None:
        """The keeper has had no chance, say because one task keeps the turn for many commits."""
        situation = self._situation(time.monotonic())
        if situation.log.used >= largest and not just_checked(situation, self.settings):
            self._checked = situation.log
            try:
                move_after_commit(connection, self._location)
            except sqlite3.Error as error:  # the commit is done, whatever comes of this
                self.reports.failed(error)

    def _on_duty(self, now: float) -> bool:
        return now < self._rest_until or self._works()

    def _works(self) -> bool:
        task = self._task
        return task is not None and not task.done() and not task.get_loop().is_closed()

    def _look_closely(self, now: float) -> None:
        if now - self._measured_at >= _MEASURE_SECONDS:
            self._measured_at = now
            action = decide(self._situation(now), self.settings)
            if action is not Action.WAIT:
                self._due = action
                return
        if self._timer_at is None or now > self._timer_at + _TIMER_LOST_SECONDS:
            self._due = Action.WAIT

    def _situation(self, now: float, *, idle: bool = False) -> Situation:
        log = measure(self._path)
        checked_at = self._checked.used if self._checked.salts == log.salts else 0
        return Situation(log, idle, checked_at, self._pinned(now))

    def _pinned(self, now: float) -> bool:
        return now < self._no_gap_until or any(
            snapshot.stays and not self._too_old(snapshot, now) for snapshot in self.snapshots
        )

    def _too_old(self, snapshot: Snapshot, now: float) -> bool:
        longest = self.settings.max_snapshot_age
        return longest is not None and not snapshot.long and now - snapshot.since >= longest

    def meet_busy(self) -> None:
        self.checkpointing.meet_busy()
        if self.checkpointing.outside_writers:
            self.reports.outside_writers(self.checkpointing.outside_writers)

    # -- in a loop ------------------------------------------------------------------------------

    def attend(self) -> None:
        """Begin to do what is due, in the running loop."""
        due, self._due = self._due, None
        if due is Action.WAIT:
            self._look_again(QUIET_SECONDS)
        elif due is not None and not self._works():
            self._start(idle=False)

    def _look_again(self, seconds: float) -> None:
        self._timer_at = time.monotonic() + seconds
        # A weak reference: the timer must not keep alive what nobody uses.
        asyncio.get_running_loop().call_later(seconds, _timer, weakref.ref(self), self._timer_at)

    def look_in_quiet(self, armed_for: float) -> None:
        """The timer: nobody has written for a moment, unless somebody has."""
        if self._timer_at != armed_for:
            return  # another one has taken its place
        self._timer_at = None
        quiet = time.monotonic() - self._committed_at
        if quiet < QUIET_SECONDS or self._turn.holder is not None or self._works():
            self._look_again(QUIET_SECONDS)
        else:
            self._start(idle=True)

    def _start(self, *, idle: bool) -> None:
        ended = self._ended = Future()
        # In a context of its own: the task inherits nothing from whoever happened to commit.
        self._task = contextvars.Context().run(
            asyncio.get_running_loop().create_task, self._work(idle=idle)
        )
        self._task.set_name(f"WAL keeper of {self._label}")
        self._task.add_done_callback(lambda _: ended.set_result(None))

    async def _work(self, *, idle: bool) -> None:
        try:
            await self._keep(idle=idle)
            self._rest_until = 0.0
        except WriteTimeout:  # a writer does not end; whoever waits for it is told so
            self._pause_longer()
            self._no_gap_until = time.monotonic() + self._pause
        except (sqlite3.Error, OSError) as error:
            self._pause_longer()
            self._rest_until = time.monotonic() + self._pause
            self.reports.failed(error)
        finally:
            self._task = None
        soft = self.settings.soft_limit
        if soft is not None and _size(self._path) >= soft:
            self._look_again(self._pause)

    def _pause_longer(self) -> None:
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    async def _keep(self, *, idle: bool) -> None:
        async with self.checkpointing.connected():
            situation = await self.checkpointing.in_thread(
                lambda: self._situation(time.monotonic(), idle=idle)
            )
            action = decide(situation, self.settings)
            if action in {Action.NOTHING, Action.WAIT}:
                return
            self._call_in_readers(situation)
            if action is Action.TIDY:
                done = await self.checkpointing.tidy()
            else:
                done = await self.checkpointing.move(_TURN_SECONDS, _LOCK_SECONDS)
            if action is Action.GAP:
                done = await self._gap() or done
            self._note(action, done, situation)

    def _call_in_readers(self, situation: Situation) -> None:
        """At the hard limit: name those who stay, and end those who are too old."""
        hard = self.settings.hard_limit
        if hard is None or situation.log.used < hard:
            return
        now = time.monotonic()
        for snapshot in self.snapshots:
            if self._too_old(snapshot, now):
                self._end_early(snapshot, situation, now)
            elif snapshot.stays:
                self.reports.stays(snapshot, situation.log.used)

    def _end_early(self, snapshot: Snapshot, situation: Situation, now: float) -> None:
        age, used = now - snapshot.since, situation.log.used
        message = (
            f"this read transaction on {self._label} was {age:.1f} s old and kept its log "
            f"({used / 2**20:.0f} MiB) from shrinking, so it was ended (max_snapshot_age="
            f"{self.settings.max_snapshot_age} s); call rollback() and read again, in shorter "
            "transactions, or declare it: db.read(long=True)"
        )
        self.reports.ended(snapshot, used)
        snapshot.end_early(lambda: SnapshotTooOldError(message))

    async def _gap(self) -> Checkpoint | None:
        done, left = await self.checkpointing.make_room(
            CheckpointMode.TRUNCATE,
            self.settings.reader_gap,
            _TURN_SECONDS,
            _LOCK_SECONDS,
            too_large=lambda: too_large(measure(self._path), self.settings),
        )
        for snapshot in left:
            snapshot.outstayed = True
            self.reports.stays(snapshot, measure(self._path).used)
        if done is not None and done.outcome is CheckpointOutcome.HELD_BACK:
            self.reports.held_back_outside(done)
        elif done is not None and done.outcome is CheckpointOutcome.TRUNCATED:
            self.reports.truncated()
            return done
        self._pause_longer()
        self._no_gap_until = time.monotonic() + self._pause
        return done

    def _note(self, action: Action, done: Checkpoint | None, situation: Situation) -> None:
        if done is None:  # somebody writes: it was not so quiet
            return
        self.reports.succeeded()
        size = situation.log.frame_size
        self._checked = LogSize(0, max(0, done.frames), size, done.salts)
        if action is Action.TIDY and done.outcome is not CheckpointOutcome.TRUNCATED:
            self._pause_longer()
        else:
            self._pause = QUIET_SECONDS

    # -- for whoever owns the database ----------------------------------------------------------

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

    async def settle(self) -> None:
        """Tidy up what an earlier process has left, and wait for it."""
        soft = self.settings.soft_limit
        if soft is None or _size(self._path) < soft:
            return
        if not self._works():
            self._start(idle=True)
        await asyncio.shield(asyncio.wrap_future(self._ended))

    async def stop(self) -> None:
        """End what goes on, and wait until its connections are closed. Commits start it again."""
        self._timer_at = None
        self._presence.hide()
        task = self._task
        if task is None or not self._works():
            return
        task.get_loop().call_soon_threadsafe(task.cancel)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._ended)), _STOP_SECONDS)

    def statistics(self) -> WalStatistics:
        """How the log stands. Reads a few bytes of the ``-wal`` file."""
        log, last = measure(self._path), self.checkpointing.last
        return WalStatistics(
            size=log.size,
            frames=log.frames,
            moved=last.moved if last is not None and last.salts == log.salts else 0,
            soft_limit=self.settings.soft_limit,
            limit=self.settings.hard_limit,
            last_checkpoint=last,
            held_back_by=None if last is None else last.held_back_by,
            oldest_reader=_reader(self.snapshots.oldest),
            sqlite_version=sqlite3.sqlite_version,
            reset_bug=has_reset_bug(sqlite3.sqlite_version_info),
            outside_writers=tuple(self.checkpointing.outside_writers),
        )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # it went with its last user
        return 0


def _reader(snapshot: Snapshot | None) -> ReaderStatistics | None:
    if snapshot is None:
        return None
    return ReaderStatistics(
        time.monotonic() - snapshot.since,
        snapshot.permit.describe_holder(),
        snapshot.long,
        snapshot.outstayed,
    )


def _timer(reference: weakref.ref[WalKeeper], armed_for: float) -> None:
    keeper = reference()
    if keeper is not None:
        keeper.look_in_quiet(armed_for)


@final
class _Registry:
    """The keepers that somebody uses, by the real path of the file."""

    def __init__(self) -> None:
        self._keepers: weakref.WeakValueDictionary[str, WalKeeper] = weakref.WeakValueDictionary()
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        self._mutex = threading.Lock()

    def keeper(self, location: Location, make: Callable[[], WalKeeper]) -> WalKeeper:
        assert location.file is not None
        with self._mutex:
            keeper = self._keepers.get(location.file)
            if keeper is None:
                keeper = self._keepers[location.file] = make()
            return keeper


_registry = _Registry()


def wal_keeper(location: Location, turn: WriteTurn) -> WalKeeper:
    """The keeper of a database file: the same object each time, as long as somebody keeps it."""
    return _registry.keeper(location, lambda: WalKeeper(location, turn))

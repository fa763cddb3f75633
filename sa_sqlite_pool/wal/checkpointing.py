"""Checkpoints under the write turn and, where necessary, in a gap between readers."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeVar, final

from ..errors import WriteTimeout
from ..files.location import Location
from ..files.neighbours import describe_writer, outside_readers, outside_writers
from ..files.open_files import open_files
from ..settings import PragmaValue
from ..stats.log import (
    Checkpoint,
    CheckpointMode,
    CheckpointOutcome,
    CheckpointsStatistics,
)
from ..system.clock import time
from ..system.forks import prepare_before_fork, renew_after_fork
from ..transactions.locks import may_pass, pause
from ..turn.fair_semaphore import FairSemaphore
from ..turn.permit import Permit
from ..turn.snapshots import Gap, Snapshot, Snapshots
from ..turn.write_turn import UNKNOWN_CONNECTION, WriteTurn
from .one_checkpoint import Checkpointer

T = TypeVar("T")

# The shortest time between two inspections of other processes' locks.
_LOOK_AROUND_SECONDS = 0.05

# How long close_last() waits for another checkpoint to end.
_LAST_SECONDS = 0.5

# The time between two checks during a gap of whether the log grows too fast.
_GROWTH_LOOK_SECONDS = 0.02

UNKNOWN_READER = (
    "an unknown reader, in another process or on a raw connection (for example, an sqlite3 shell "
    "left in a transaction, or a backup tool)"
)


@final
class Checkpointing:
    """The checkpoints of one database file; only one runs at a time.

    Each opens two connections of its own and closes them. ``pragmas`` are the writing engine's
    pragmas. ``last`` is the last result; ``outside_writers`` are processes that were found to write
    and that do not use this package.
    """

    def __init__(self, location: Location, turn: WriteTurn, snapshots: Snapshots) -> None:
        self.pragmas: Mapping[str, PragmaValue] = {}
        self.last: Checkpoint | None = None
        self.outside_writers: list[str] = []
        self.closed_for_fork = False  # during the last run
        self._next_look_around = 0.0
        assert location.file is not None
        self._file = location.file
        self._location = location.with_parameter("mode", "rw")  # never re-create a missing file
        self._turn = turn
        self._snapshots = snapshots
        self._one_at_a_time = FairSemaphore(1)
        self._checkpointer: Checkpointer | None = None
        self._outcomes: Counter[CheckpointOutcome] = Counter()
        self._seconds = self._longest = 0.0
        prepare_before_fork(self)
        renew_after_fork(self)

    # -- forks ----------------------------------------------------------------------------------

    def prepare_for_fork(self) -> None:
        """Close the connections: a child must not inherit a connection to a file that it opens."""
        if self._checkpointer is not None:
            self.closed_for_fork = True
            self._checkpointer.close_before_fork()

    def renew_in_child(self) -> None:
        self._checkpointer = None

    # -- one run --------------------------------------------------------------------------------

    @asynccontextmanager
    async def connected(self, timeout: float | None = None) -> AsyncIterator[bool]:
        """Keep the connections open within the block; yield False if another checkpoint still uses
        them after ``timeout`` seconds.
        """
        permit = await self._one_at_a_time.acquire(timeout)
        if permit is None:
            yield False
            return
        self.closed_for_fork = False
        if self._checkpointer is not None:  # its loop has died
            self._checkpointer.give_up()
        checkpointer = self._checkpointer = Checkpointer(self._location, self.pragmas)
        try:
            await checkpointer.open()
            yield True
        except GeneratorExit:  # the loop is gone: nothing can be awaited
            checkpointer.give_up()
            raise
        finally:
            try:
                await checkpointer.close()
            finally:  # even if this is cancelled once more
                if self._checkpointer is checkpointer:  # else its loop has died: see above
                    self._checkpointer = None
                self._one_at_a_time.release(permit)

    async def close_last(self) -> None:
        """Close a connection that may write, after the readers: SQLite removes the log with it.

        For a writer that was closed before them.
        """
        with contextlib.suppress(sqlite3.Error):  # it stays until it is opened again
            open_files.assert_may_open(self._file)
            async with self.connected(_LAST_SECONDS):
                pass

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the thread of the checkpoints."""
        assert self._checkpointer is not None
        return await self._checkpointer.in_thread(function)

    async def move(self, seconds: float, lock_seconds: float) -> Checkpoint:
        """Run PASSIVE in a turn of its own, waiting at most ``seconds`` for the turn."""
        async with self._in_turn(seconds):
            result = await self._run(CheckpointMode.PASSIVE, lock_seconds)
        return await self._noted(result)

    async def move_gently(self, seconds: float, lock_seconds: float) -> Checkpoint:
        """Run PASSIVE in two turns, and wait for the disk between them, so writers do not have to.

        Moving 32 MiB takes 40 ms, of which 33 ms are spent on the disk.
        """
        assert self._checkpointer is not None
        await self._checkpointer.begin_snapshot()
        async with self._in_turn(seconds):
            await self._run(CheckpointMode.PASSIVE, lock_seconds)  # held back by the held snapshot
        await self._checkpointer.end_snapshot_and_sync()
        return await self.move(seconds, lock_seconds)

    async def tidy(self) -> Checkpoint | None:
        """Run TRUNCATE if the turn is free, without waiting for readers; else return None."""
        permit = self._turn.acquire_nowait()
        if permit is None:
            return None
        async with self._holding(permit):
            request = self._turn.enter_nowait()
            if request is None:
                return None
            with request:
                result = await self._run(CheckpointMode.TRUNCATE, 0.0)
        return await self._noted(result)

    def hurry(self) -> None:
        """End the snapshot of :meth:`move_gently`, which delays checkpoints; from any thread."""
        checkpointer = self._checkpointer
        if checkpointer is not None:
            checkpointer.end_snapshot()

    async def make_room(
        self,
        mode: CheckpointMode,
        gap_seconds: float,
        seconds: float,
        lock_seconds: float,
        *,
        too_large: Callable[[], bool] = lambda: False,
    ) -> tuple[Checkpoint | None, list[Snapshot]]:
        """Run ``mode`` in a gap between readers; return its result, or the readers that stayed.

        Wait ``gap_seconds`` for readers to end. Writers continue meanwhile; once the log is
        ``too_large`` (called in a thread), they wait, too. If the line of writers is too long to
        get the turn within the gap, wait at most ``seconds`` for it, then open another gap.
        """
        result: Checkpoint | None = None
        async with AsyncExitStack() as stack:
            gap = stack.enter_context(self._snapshots.gap(2 * gap_seconds))
            has_turn = await self._wait_for_readers(gap, gap_seconds, seconds, too_large, stack)
            if left := gap.left:
                return None, left
            if has_turn or await self._take_turn(stack, min(seconds, gap_seconds)):
                result = await self._run(mode, lock_seconds)
        if result is None:
            async with self._in_turn(seconds):
                with self._snapshots.gap(2 * gap_seconds) as gap:
                    await gap.wait(gap_seconds)
                    if left := gap.left:
                        return None, left
                    result = await self._run(mode, lock_seconds)
        return await self._noted(result), []

    async def _wait_for_readers(
        self,
        gap: Gap,
        gap_seconds: float,
        seconds: float,
        too_large: Callable[[], bool],
        stack: AsyncExitStack,
    ) -> bool:
        """Wait until no reader is left or the time is up; return whether this acquired the turn."""
        give_up, has_turn = time.monotonic() + gap_seconds, False
        while gap.left and time.monotonic() < give_up:
            if not has_turn and await self.in_thread(too_large):
                await stack.enter_async_context(self._in_turn(seconds))
                has_turn = True
            else:
                await gap.wait(min(_GROWTH_LOOK_SECONDS, give_up - time.monotonic()))
        return has_turn

    async def _take_turn(self, stack: AsyncExitStack, seconds: float) -> bool:
        try:
            await stack.enter_async_context(self._in_turn(seconds))
        except WriteTimeout:
            return False
        return True

    @asynccontextmanager
    async def _in_turn(self, seconds: float) -> AsyncIterator[None]:
        give_up = time.monotonic() + seconds
        async with self._holding(await self._turn.acquire(seconds, self)):
            waited = seconds - (give_up - time.monotonic())
            with await self._turn.enter(seconds, self, waited=waited):
                yield

    @asynccontextmanager
    async def _holding(self, permit: Permit) -> AsyncIterator[None]:
        # If the loop dies meanwhile, the next task in line gets the turn, and the checkpoint
        # continues under SQLite's own lock.
        permit.last_sql, permit.idle_since = "PRAGMA wal_checkpoint", None
        try:
            yield
        finally:
            self._turn.release(permit)

    async def _run(self, mode: CheckpointMode, lock_seconds: float) -> Checkpoint:
        assert self._checkpointer is not None
        began = time.monotonic()
        while True:
            try:
                result = await self._checkpointer.run(mode)
                break
            except sqlite3.OperationalError as error:
                if not may_pass(error, in_transaction=False):
                    raise
            await self.in_thread(self._turn.meet_busy)
            await self.in_thread(self.meet_busy)
            if time.monotonic() - began >= lock_seconds:
                result = Checkpoint(mode, CheckpointOutcome.BUSY, True, -1, -1, 0.0)
                break
            await pause()
        now, oldest, who = time.monotonic(), self._snapshots.oldest, None
        if result.outcome is CheckpointOutcome.HELD_BACK and oldest is not None:
            who = oldest.describe(now)
        return replace(result, seconds=now - began, held_back_by=who)

    async def _noted(self, result: Checkpoint) -> Checkpoint:
        """Record ``result`` as the last one, with what held it back; call this without the turn."""
        who = result.held_back_by
        if result.outcome is CheckpointOutcome.BUSY:
            found = await self.in_thread(lambda: describe_writer(self._file))
            who = f"{found or UNKNOWN_CONNECTION} which is writing or running a checkpoint"
        elif result.outcome is CheckpointOutcome.HELD_BACK and who is None:
            readers = await self.in_thread(lambda: outside_readers(self._file))
            who = ", ".join(readers) or UNKNOWN_READER
        self.last = replace(result, held_back_by=who)
        self._count(result)
        return self.last

    def _count(self, result: Checkpoint) -> None:
        self._outcomes[result.outcome] += 1
        self._seconds += result.seconds
        self._longest = max(self._longest, result.seconds)

    def statistics(self) -> CheckpointsStatistics:
        """Return the counters of this file's checkpoints."""
        outcomes = self._outcomes
        return CheckpointsStatistics(
            moved_all=outcomes[CheckpointOutcome.MOVED_ALL],
            truncated=outcomes[CheckpointOutcome.TRUNCATED],
            held_back=outcomes[CheckpointOutcome.HELD_BACK],
            busy=outcomes[CheckpointOutcome.BUSY],
            seconds=self._seconds,
            longest_seconds=self._longest,
        )

    def meet_busy(self) -> None:
        """Record the processes that write and do not use this package; call this in a thread."""
        now = time.monotonic()
        if self.outside_writers or now < self._next_look_around:
            return
        self._next_look_around = now + _LOOK_AROUND_SECONDS
        self.outside_writers = outside_writers(self._file)

"""Waits in a line: how many, how long, and their end."""

from __future__ import annotations

import asyncio

import pytest

from sa_sqlite_pool import SQLiteDatabase, TurnAlreadyHeldError, Waits
from sa_sqlite_pool.stats.lines import BOUNDS_SECONDS
from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.waits import WaitCounter
from tests.helpers import UPDATE_FIRST, create_items, until_waiting


class Clock:
    """Shows the seconds that a test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_wait_is_as_long_as_it_was() -> None:
    """A permit that is free is not waited for."""
    clock = Clock()
    line = FairSemaphore(1, clock)
    first = line.acquire_nowait()
    assert first is not None
    waiting = asyncio.create_task(line.acquire(None))
    await until_waiting(1, line)
    clock.now += 0.07
    line.release(first)
    second = await waiting
    assert second is not None
    line.release(second)
    momentary = line.acquire_for_a_moment()
    assert momentary is not None
    line.release_after_a_moment(momentary)
    found = line.waits.snapshot()
    assert (found.at_once, found.waited) == (2, 1)
    assert found.seconds == found.longest_seconds == pytest.approx(0.07)
    assert found.histogram == (0, 0, 0, 0, 1, 0, 0, 0, 0, 0)


async def test_waits_that_end_otherwise() -> None:
    """After a time-out, a cancellation, or an error; none of them has a permit."""
    line = FairSemaphore(1)
    assert line.acquire_nowait() is not None
    assert await line.acquire(0.0) is None
    cancelled = asyncio.create_task(line.acquire(None))
    sent_away = asyncio.create_task(line.acquire(None, line))
    await until_waiting(2, line)
    cancelled.cancel()
    line.send_away(line, lambda: ValueError("closed"))
    found = await asyncio.gather(cancelled, sent_away, return_exceptions=True)
    assert [type(error) for error in found] == [asyncio.CancelledError, ValueError]
    counts = line.waits.snapshot()
    assert (counts.waited, counts.timed_out, counts.cancelled, counts.sent_away) == (3, 1, 1, 1)


async def test_a_permit_that_comes_with_a_cancellation() -> None:
    """The wait was cancelled, and the permit goes on to the next."""
    line = FairSemaphore(1)
    first = line.acquire_nowait()
    assert first is not None
    waiting = asyncio.create_task(line.acquire(None))
    await until_waiting(1, line)
    line.release(first)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not line.locked()
    assert (line.waits.snapshot().waited, line.waits.snapshot().cancelled) == (1, 1)


@pytest.mark.parametrize("number", range(len(BOUNDS_SECONDS)))
def test_bounds_belong_to_what_is_below(number: int) -> None:
    """As Prometheus and OpenTelemetry have it: less than or equal."""
    counter = WaitCounter()
    counter.ended(BOUNDS_SECONDS[number])
    counter.ended(BOUNDS_SECONDS[number] + 1e-9)
    histogram = counter.snapshot().histogram
    assert histogram[number : number + 2] == (1, 1)
    assert sum(histogram) == 2


async def test_the_turn(db: SQLiteDatabase) -> None:
    """Its holder, its line, and a task that would wait for itself."""
    await create_items(db.writer_engine)
    before = db.statistics().turn
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)
        with pytest.raises(TurnAlreadyHeldError):
            async with db.write() as other:
                await other.execute(UPDATE_FIRST)
        waiting = asyncio.create_task(write(db))
        await until_waiting(1, db.writer_engine.pool)
        turn = db.statistics().turn
        assert turn.holder is not None
        assert turn.holder.task == "task " + repr(asyncio.current_task().get_name())  # type: ignore[union-attr]
        assert turn.holder.sql == UPDATE_FIRST.text
        assert (turn.holder.asked_at or "").startswith("test_waits.py:")
        assert (turn.holder.now_at or "").startswith("test_waits.py:")
        assert (turn.holder.idle_seconds or 0) <= turn.holder.seconds
        assert turn.waiting == 1
    await waiting
    done = db.statistics().turn - before
    assert (done.holder, done.waiting, done.self_deadlocks) == (None, 0, 1)
    assert (done.waits.at_once, done.waits.waited) == (1, 1)
    assert done.shared
    assert done.waits_for_processes == Waits(at_once=2)


async def write(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)

"""Waits in a line: their number, duration and outcome."""

from __future__ import annotations

import asyncio

import pytest

from sa_sqlite_pool import SQLiteDatabase, TurnAlreadyHeldError, Waits
from sa_sqlite_pool.stats.lines import BOUNDS_SECONDS
from sa_sqlite_pool.stats.wait_counter import WaitCounter
from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from tests.helpers import UPDATE_FIRST, create_items, until_waiting


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_wait_is_as_long_as_it_was() -> None:
    """The full wait is counted; acquiring a free permit is no wait."""
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
    """Waits that end by a time-out, a cancellation or an error are counted; none gets a permit."""
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
    """The wait counts as cancelled, and the permit passes to the next task."""
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
    """Bounds are inclusive, as in Prometheus and OpenTelemetry: less than or equal."""
    counter = WaitCounter()
    counter.ended(BOUNDS_SECONDS[number])
    counter.ended(BOUNDS_SECONDS[number] + 1e-9)
    histogram = counter.snapshot().histogram
    assert histogram[number : number + 2] == (1, 1)
    assert sum(histogram) == 2


async def test_the_turn(db: SQLiteDatabase) -> None:
    """The statistics have the turn's holder, its line, and a task that would wait for itself."""
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

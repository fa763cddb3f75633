"""Permits of the fair semaphore for work that ends before its task awaits anything."""

from __future__ import annotations

import asyncio

from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from tests.helpers import until_waiting
from tests.turn.semaphores import take


async def test_it_counts_as_any_permit() -> None:
    """While it is held, tasks of other loops find one permit less."""
    line = FairSemaphore(2)
    first, moment = await take(line), line.acquire_for_a_moment()
    assert moment is not None
    assert line.acquire_nowait() is None
    assert line.acquire_for_a_moment() is None
    line.release_after_a_moment(moment)
    second = line.acquire_for_a_moment()
    assert second is moment  # no new one is created
    line.release_after_a_moment(second)
    assert line.permits == [first]


async def test_it_overtakes_no_waiter() -> None:
    """This includes a waiter that has its permit, but has not run yet."""
    line = FairSemaphore()
    first = await take(line)
    waiter = asyncio.create_task(take(line))
    await until_waiting(1, line)
    assert line.acquire_for_a_moment() is None
    line.release(first)
    assert line.acquire_for_a_moment() is None
    line.release(await waiter)
    assert line.acquire_for_a_moment() is not None


async def test_it_is_passed_on() -> None:
    """A task of another loop that has joined the line meanwhile is served."""
    line = FairSemaphore()
    moment = line.acquire_for_a_moment()
    assert moment is not None
    waiter = line.stand_in_line(None)
    assert waiter.permit is None
    line.release_after_a_moment(moment)
    permit = await line.wait(waiter, None)
    assert permit is not None
    assert line.permits == [permit]
    line.release(permit)


async def test_it_is_told_what_was_released_meanwhile() -> None:
    """A permit that the garbage collector releases under the mutex is passed on at the end."""
    line = FairSemaphore(2)
    first, moment = await take(line), line.acquire_for_a_moment()
    assert moment is not None
    with line._mutex:
        line.release(first)
    line.release_after_a_moment(moment)
    assert line.permits == []
    assert not line.locked()

"""The details recorded of a wait, by a clock that the tests control."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from sa_sqlite_pool.system.loop_state import of_running_loop
from sa_sqlite_pool.turn.deadlines import Deadlines
from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.waits import UNWATCHED, WaitedFor, WaitWatch
from tests.helpers import run_in_virtual_time, time_passes, until_waiting


def watched() -> tuple[FairSemaphore, WaitWatch]:
    """Return a line and a watch that logs waits of a second in it, by the running loop's clock."""
    clock = asyncio.get_running_loop().time
    return FairSemaphore(1, clock), WaitWatch(1.0, clock)


async def wait(line: FairSemaphore, watch: WaitWatch, timeout: float | None = None) -> None:
    with watch.block(WaitedFor.TURN, "app.db", line, line.describe_holders):
        permit = await line.wait(line.stand_in_line(None), timeout)
    if permit is not None:
        line.release(permit)


def test_the_holder_is_the_one_at_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    """It is neither an earlier nor a later holder; the seconds are those of the whole wait."""

    async def main() -> None:
        line, watch = watched()

        async def hold(seconds: float) -> None:
            permit = line.acquire_nowait() or await line.wait(line.stand_in_line(None), None)
            assert permit is not None
            await time_passes(seconds)
            line.release(permit)

        tasks = [
            asyncio.create_task(hold(seconds), name=f"holder-{seconds}")
            for seconds in (0.75, 0.5, 2.0)
        ]
        await until_waiting(2, line)
        await asyncio.gather(asyncio.create_task(wait(line, watch), name="waiter"), *tasks)

    run_in_virtual_time(main())
    (record,) = caplog.records
    assert record.getMessage().startswith("task 'waiter' waited 3.25 s to write to app.db at test_")
    assert "after 1.00 s: 0.2 s by task 'holder-0.5'" in record.getMessage()


def test_the_waiter_is_not_in_its_own_way(caplog: pytest.LogCaptureFixture) -> None:
    """On a loop that stalled, the waiter may be served when the limit is noticed."""

    async def main() -> None:
        line, watch = watched()
        held = line.acquire_nowait()
        assert held is not None

        async def wait_in_place() -> None:
            place = line.stand_in_line(None)
            with watch.block(WaitedFor.TURN, "app.db", line, lambda: line.in_the_way_of(place)):
                permit = await line.wait(place, None)
            assert permit is not None
            line.release(permit)

        waiter = asyncio.create_task(wait_in_place())
        await until_waiting(1, line)
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        loop._jumping.now += 2.0  # type: ignore[attr-defined]
        loop.call_soon(line.release, held)  # before the timer, which is due
        await waiter

    run_in_virtual_time(main())
    (record,) = caplog.records
    assert "unknown, because the event loop was busy" in record.getMessage()


def test_a_stranger_is_no_ancestor(caplog: pytest.LogCaptureFixture) -> None:
    """The timer of all waits may be the holder's, although it started none of the others."""

    async def main() -> None:
        line, watch = watched()

        async def hold() -> None:
            permit = line.acquire_nowait()
            assert permit is not None
            with watch.block(WaitedFor.PROCESS, "app.db", None, lambda: "another process"):
                await time_passes(1.5)  # the timer has the context of the holder
            line.release(permit)

        await asyncio.gather(hold(), wait(line, watch))

    run_in_virtual_time(main())
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert not any("started while it was held" in message for message in messages)


@pytest.mark.parametrize(("seconds", "logged"), [(0.99, 0), (1.0, 1)])
def test_from_the_limit_on(seconds: float, logged: int, caplog: pytest.LogCaptureFixture) -> None:
    """A shorter wait leaves nothing behind, not even a timer."""

    async def main() -> None:
        line, watch = watched()
        assert line.acquire_nowait() is not None
        task = asyncio.create_task(wait(line, watch, seconds))
        await task
        assert of_running_loop(Deadlines)._queues == {}

    run_in_virtual_time(main())
    assert len(caplog.records) == logged


def test_a_loop_that_was_busy(caplog: pytest.LogCaptureFixture) -> None:
    """No timer ran to find out the holder of the turn, and the record says so."""

    async def main() -> None:
        now = 0.0
        line, watch = FairSemaphore(1), WaitWatch(1.0, lambda: now)
        permit = line.acquire_nowait()
        assert permit is not None
        task = asyncio.create_task(wait(line, watch))
        await until_waiting(1, line)
        now = 5.0
        line.release(permit)
        await task

    asyncio.run(main())
    (record,) = caplog.records
    assert vars(record)["held_by"] == "unknown, because the event loop was busy"
    assert vars(record)["seconds_waited"] == 5.0


def test_a_task_whose_loop_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """The garbage collector ends its wait, and nothing is logged from there."""
    now = [0.0]

    async def main() -> asyncio.Task[None]:
        line, watch = FairSemaphore(1), WaitWatch(1.0, lambda: now[0])
        assert line.acquire_nowait() is not None
        task = asyncio.create_task(wait(line, watch))
        await until_waiting(1, line)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(main())
    loop.close()
    coroutine = task.get_coro()
    assert coroutine is not None
    now[0] = 5.0
    coroutine.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task
    gc.collect()
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_description_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The same timer ends other waits, and must still do so."""

    async def main() -> None:
        line, watch = watched()
        assert line.acquire_nowait() is not None

        def describe() -> str:
            raise OSError("no /proc")

        async def wait_and_fail() -> None:
            with watch.block(WaitedFor.TURN, "app.db", line, describe):
                await line.wait(line.stand_in_line(None), 2.0)

        first = asyncio.create_task(wait_and_fail())
        await until_waiting(1, line)
        assert await line.acquire(1.0) is None
        await first

    run_in_virtual_time(main())
    (record,) = caplog.records
    assert vars(record)["held_by"] == "unknown (OSError('no /proc'))"


def test_no_limit() -> None:
    """Without a limit, no timer is needed: the same block is used, which does nothing."""
    line = FairSemaphore(1)
    one, other = (
        UNWATCHED.block(WaitedFor.TURN, "app.db", line, line.describe_holders) for _ in range(2)
    )
    assert one is other

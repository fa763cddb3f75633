"""Waiters that are sent away, whose loop is closed, or that belong to another process."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.permit import Permit
from tests.helpers import run_in_virtual_time, until_waiting
from tests.turn.semaphores import semaphore, take


def test_a_permit_of_a_closed_loop_is_recalled() -> None:
    """Its holder will never run again; the next task recalls the permit in the holder's own way."""
    line = FairSemaphore()
    recalled: list[Permit] = []

    async def hold(recall: bool) -> None:
        permit = await take(line)

        def take_back() -> None:
            recalled.append(permit)
            line.release(permit)

        permit.recall = take_back if recall else None

    asyncio.run(hold(recall=True))
    asyncio.run(hold(recall=False))
    assert len(recalled) == 1
    asyncio.run(hold(recall=False))
    assert len(line.permits) == 1


def test_a_permit_of_a_closed_loop_is_recalled_by_who_has_another() -> None:
    """The same applies to a loop that was served at once, and makes another request."""
    line = FairSemaphore(2)

    async def hold(count: int) -> None:
        for _ in range(count):
            assert await line.acquire(timeout=10) is not None

    asyncio.run(hold(1))
    asyncio.run(hold(2))


def test_waiters_are_sent_away() -> None:
    """Those of one owner get the error; the others keep their places."""

    async def main() -> None:
        line, owner = semaphore(), object()
        permit = await take(line)
        mine = asyncio.create_task(line.acquire(None, owner))
        other = asyncio.create_task(take(line))
        await until_waiting(2, line)
        line.send_away(owner, lambda: LookupError("closed"))
        with pytest.raises(LookupError, match="closed"):
            await mine
        line.release(permit)
        assert line.permits == [await other]

    run_in_virtual_time(main())


def test_sent_away_and_cancelled_at_once() -> None:
    """The cancellation takes precedence, and nothing is left behind.

    Closer            | Waiter
    send_away()       | (woken, not run yet)
                      | cancelled
    """

    async def main() -> None:
        line, owner = semaphore(), object()
        permit = await take(line)
        mine = asyncio.create_task(line.acquire(None, owner))
        await until_waiting(1, line)
        line.send_away(owner, lambda: LookupError("closed"))
        mine.cancel()
        with pytest.raises(asyncio.CancelledError):
            await mine
        line.release(permit)
        assert line.permits == []
        assert line.waiting == 0

    run_in_virtual_time(main())


def test_a_child_that_waits_for_its_ancestor_is_told() -> None:
    """Clear waits: the holder may be waiting for the very task that waits for it."""

    async def main() -> None:
        line = semaphore()

        async def child() -> None:
            assert await line.acquire(1) is None
            told.append(line.describe_holders())

        told: list[str] = []
        permit = await take(line)
        await asyncio.create_task(child())
        assert "this task was started while it was held" in told[0]
        assert "started while it was held" not in line.describe_holders()
        line.release(permit)

        async def stranger() -> None:
            permit = await take(line)
            await done.wait()
            line.release(permit)

        done = asyncio.Event()
        holder = asyncio.create_task(stranger())
        await asyncio.sleep(0)
        await asyncio.create_task(child())
        assert "started while it was held" not in told[1]
        done.set()
        await holder

    run_in_virtual_time(main())


def test_a_waiter_of_a_closed_loop_is_passed_over() -> None:
    """A loop that was closed while waiting does not block the line."""
    line = FairSemaphore()
    dead = asyncio.new_event_loop()
    held: list[Permit] = []

    async def hold() -> None:
        held.append(await take(line))

    async def queue() -> None:
        asyncio.get_running_loop().create_task(take(line))
        await until_waiting(1, line)

    holding = asyncio.new_event_loop()
    holding.run_until_complete(hold())
    dead.run_until_complete(queue())
    abandoned = asyncio.all_tasks(dead)
    dead.close()

    async def newcomer() -> None:
        waiter = asyncio.create_task(take(line))
        await until_waiting(2, line)
        line.release(held[0])
        permit = await waiter
        assert line.permits == [permit]

    asyncio.run(newcomer())
    holding.close()
    for task in abandoned:  # the loop is gone; without this, asyncio warns
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()


def test_several_loops_share_one_line() -> None:
    """Threads with their own loops are served one at a time, and all are served."""
    line = FairSemaphore()
    inside, most_inside, served = 0, 0, 0
    mutex = threading.Lock()

    async def worker() -> None:
        nonlocal inside, most_inside, served
        for _ in range(50):
            permit = await take(line)
            with mutex:
                inside += 1
                most_inside = max(most_inside, inside)
            await asyncio.sleep(0)
            with mutex:
                inside -= 1
                served += 1
            line.release(permit)

    async def main() -> None:
        await asyncio.gather(*(worker() for _ in range(5)))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most_inside, served) == (1, 3 * 5 * 50)

"""The fair semaphore: schedules in virtual time, and a random one."""

from __future__ import annotations

import asyncio
import random
import sys

import pytest

from sa_sqlite_pool.stats.lines import LineStatistics
from sa_sqlite_pool.system.loop_state import of_running_loop
from sa_sqlite_pool.turn.deadlines import Deadlines
from sa_sqlite_pool.turn.fair_semaphore import FairSemaphore
from sa_sqlite_pool.turn.permit import Permit, shorten
from tests.helpers import run_in_virtual_time, time_passes, until_waiting
from tests.turn.semaphores import semaphore, take


def test_capacity_must_be_positive() -> None:
    """A semaphore without permits would make every task wait for ever."""
    with pytest.raises(ValueError, match="at least 1"):
        FairSemaphore(0)


def test_waiters_are_served_in_order_of_arrival() -> None:
    """Fair turns: first come, first served."""

    async def main() -> None:
        line, served = semaphore(), []

        async def worker(number: int) -> None:
            permit = await take(line)
            served.append(number)
            await time_passes(1)
            line.release(permit)

        await asyncio.gather(*(worker(number) for number in range(20)))
        assert served == list(range(20))

    run_in_virtual_time(main())


def test_a_newcomer_never_overtakes_a_woken_waiter() -> None:
    """Fair turns: between a release and the wake-up, the permit already has its owner.

    Holder    | Waiter      | Newcomer
    release() | (woken)     |
              |             | acquire_nowait() → None
              | runs        |
    """

    async def main() -> None:
        line = semaphore()
        first = await take(line)
        waiter = asyncio.create_task(take(line))
        await until_waiting(1, line)
        line.release(first)
        assert line.acquire_nowait() is None
        second = await waiter
        assert line.permits == [second]

    run_in_virtual_time(main())


def test_a_cancelled_waiter_leaves_the_line() -> None:
    """Clean cancellation: the place in line is given up."""

    async def main() -> None:
        line = semaphore()
        first = await take(line)
        waiter = asyncio.create_task(take(line))
        await until_waiting(1, line)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert line.waiting == 0
        line.release(first)
        assert line.acquire_nowait() is not None

    run_in_virtual_time(main())


def test_a_permit_handed_to_a_cancelled_waiter_goes_to_the_next() -> None:
    """Clean cancellation: between release and wake-up, no permit is stranded.

    Holder    | Waiter        | Next
    release() | owns it       | (in line)
              | cancel()      |
              | CancelledError| owns it
    """

    async def main() -> None:
        line = semaphore()
        first = await take(line)
        cancelled, following = (asyncio.create_task(take(line)) for _ in range(2))
        await until_waiting(2, line)
        line.release(first)
        cancelled.cancel()
        permit = await following
        assert line.permits == [permit]
        assert cancelled.cancelled()

    run_in_virtual_time(main())


def test_nothing_is_given_after_the_time_out() -> None:
    """A waiter that times out returns None at its deadline, and the next is served instead."""

    async def main() -> None:
        line = semaphore()
        first = await take(line)
        impatient = asyncio.create_task(line.acquire(2.5))
        patient = asyncio.create_task(take(line))
        assert await impatient is None
        assert asyncio.get_running_loop().time() == 2.5
        line.release(first)
        permit = await patient
        assert line.permits == [permit]

    run_in_virtual_time(main())


def test_a_release_at_the_deadline_is_not_lost() -> None:
    """Time-out against hand-over: the timer has woken the waiter, which has not run yet."""

    async def main() -> None:
        line = semaphore()
        first = await take(line)
        loop = asyncio.get_running_loop()
        waiter = asyncio.create_task(line.acquire(1.0))
        await until_waiting(1, line)
        # Timers due at the same moment run in order, all before the task that they wake.
        loop.call_at(1.0, line.release, first)
        permit = await waiter
        assert permit is not None
        assert line.permits == [permit]

    run_in_virtual_time(main())


def test_as_many_as_the_capacity_go_on_at_once() -> None:
    """A pool of three lends three connections."""

    async def main() -> None:
        line = semaphore(3)
        permits = [await take(line) for _ in range(3)]
        assert line.acquire_nowait() is None
        waiters = [asyncio.create_task(take(line)) for _ in range(2)]
        await until_waiting(2, line)
        line.release(permits[0])
        line.release(permits[1])
        await asyncio.gather(*waiters)
        assert len(line.permits) == 3

    run_in_virtual_time(main())


def test_a_release_in_the_middle_of_everything() -> None:
    """The garbage collector may run at any line, and find a connection to return.

    Here it does so inside the mutex: when a permit is created, the clock is read.
    """

    class Collecting:
        def __init__(self) -> None:
            self.garbage: list[Permit] = []

        def __call__(self) -> float:
            while self.garbage:
                line.release(self.garbage.pop())
            return 0.0

    async def main() -> None:
        clock.garbage.append(await take(line))
        second, third = await take(line), await take(line, timeout=10)
        waiters = [asyncio.create_task(take(line, timeout=10)) for _ in range(2)]
        await until_waiting(2, line)
        clock.garbage.append(second)
        line.release(third)
        assert {await waiter for waiter in waiters} == set(line.permits)

    clock = Collecting()
    line = FairSemaphore(2, clock)
    run_in_virtual_time(main())


def test_giving_back_twice_changes_nothing() -> None:
    """The same applies to returning a permit that was acquired before a fork."""

    async def main() -> None:
        line = semaphore()
        permit = await take(line)
        line.release(permit)
        other = await take(line)
        line.release(permit)
        assert line.permits == [other]

    run_in_virtual_time(main())


async def test_who_has_waited_leaves_no_timer() -> None:
    """Served or cancelled, it does not keep the loop busy until its time has passed."""
    line, deadlines = semaphore(), of_running_loop(Deadlines)
    for cancelled in (False, True):
        permit = await take(line)
        waiting = asyncio.create_task(take(line, 60))
        await until_waiting(1, line)
        assert deadlines._queues
        if cancelled:
            waiting.cancel()
        line.release(permit)
        await asyncio.wait([waiting])
        assert not deadlines._queues
        if not cancelled:
            line.release(await waiting)


@pytest.mark.parametrize("seed", range(5))
def test_random_schedules_strand_nothing(seed: int) -> None:
    """Whatever is cancelled or times out, every permit is released, and no task still waits."""
    chance = random.Random(seed)

    async def main() -> None:
        capacity = chance.randint(1, 3)
        line = semaphore(capacity)
        inside = 0

        async def worker() -> None:
            nonlocal inside
            permit = await line.acquire(chance.choice([None, chance.random() * 3]))
            if permit is None:
                return
            try:
                inside += 1
                assert inside <= capacity
                await time_passes(chance.random())
            finally:
                inside -= 1
                line.release(permit)

        tasks = [asyncio.create_task(worker()) for _ in range(200)]
        for task in tasks:
            if chance.random() < 0.4:
                asyncio.get_running_loop().call_later(chance.random() * 20, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        failures = [task.exception() for task in tasks if not task.cancelled() and task.exception()]
        assert failures == []
        assert (line.permits, line.waiting) == ([], 0)

    run_in_virtual_time(main())


def test_the_holder_is_described() -> None:
    """Clear waits: the message has the task, its time, its current line, and its SQL."""

    async def main() -> None:
        line = semaphore()
        entered = asyncio.Event()

        async def holder() -> None:
            permit = await take(line)
            permit.last_sql = "UPDATE items\n  SET amount = 1"
            entered.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(holder(), name="import-42")
        await entered.wait()
        await time_passes(12)
        description = line.describe_holders()
        assert description.startswith("12.0 s by task 'import-42' (now at test_fair_semaphore.py:")
        assert description.endswith("last SQL: UPDATE items SET amount = 1)")
        task.cancel()

    run_in_virtual_time(main())


def test_messages_about_many_holders() -> None:
    """A message names those that have held longest, and counts the others."""

    async def main() -> None:
        line = semaphore(54)
        for _ in range(54):
            await take(line)
            await time_passes(1)
        *described, others = line.describe_holders().split("; ")
        assert [text.split()[0] for text in described] == ["54.0", "53.0", "52.0", "51.0", "50.0"]
        assert others == "49 more"

    run_in_virtual_time(main())


def test_statistics() -> None:
    """They list the permits, the oldest first, and the number of tasks that wait for one."""

    async def main() -> None:
        line = semaphore(2)
        assert line.statistics() == LineStatistics(capacity=2)
        first = await take(line)
        await time_passes(3)
        assert not line.locked()
        second = await take(line)
        second.last_sql = "SELECT 2"
        waiting = asyncio.create_task(take(line))
        await time_passes(1)
        assert line.locked()
        found = line.statistics()
        assert (found.capacity, found.waiting, found.waits.at_once) == (2, 1, 2)
        assert [(one.seconds, one.sql) for one in found.holders] == [(4.0, None), (1.0, "SELECT 2")]
        for permit in (first, second):
            line.release(permit)
        line.release(await waiting)
        assert found.waiting == 1  # a value, not a view
        assert (line.statistics().waiting, line.statistics().waits.waited) == (0, 1)
        assert FairSemaphore(sys.maxsize).statistics().capacity is None
        assert not line.locked()

    run_in_virtual_time(main())


def test_long_sql_is_cut() -> None:
    """A message stays readable."""
    assert shorten("SELECT 1") == "SELECT 1"
    assert len(shorten("SELECT " + "1, " * 5000)) == 120

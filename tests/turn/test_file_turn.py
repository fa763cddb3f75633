"""The turn between processes. Two objects on a file behave like two processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sa_sqlite_pool.turn import file_turn
from sa_sqlite_pool.turn.file_turn import FileTurn
from tests.helpers import until
from tests.turn.file_turns import ON_LINUX, Clock, path, process, start, taken
from tests.turn.locks import (
    Calls,
    blocked,
    calls,
    is_free,
    waiting_threads,
)

__all__ = ["calls", "path"]


async def test_a_free_turn_costs_two_system_calls(path: Path, calls: Calls) -> None:
    """One acquires it and one releases it, each time; no thread is started."""
    turn, before = process(path), waiting_threads()
    for number in range(1, 4):
        taken(turn).release()
        assert calls.count == 2 * number
    assert not waiting_threads() - before


async def test_one_process_at_a_time(path: Path) -> None:
    """Serialized writes: a process cannot acquire the turn until the holder has released it."""
    one, other = process(path), process(path)
    request = taken(one)
    assert other.acquire_nowait() is None
    request.release()
    taken(other).release()


async def test_given_back_twice(path: Path) -> None:
    """A request that has ended does not affect the current holder of the turn."""
    one, other = process(path), process(path)
    request = taken(one)
    request.release()
    second = taken(one)
    request.release()
    assert other.acquire_nowait() is None
    second.release()


async def test_waiting_in_the_kernel(path: Path) -> None:
    """No polling: a release of the turn wakes the waiter; the loop continues meanwhile."""
    one, other = process(path), process(path)
    request = taken(one)
    task = await start(path, other)
    assert not task.done()
    request.release()
    second = await task
    assert second is not None
    assert one.acquire_nowait() is None
    second.release()
    assert is_free(path)


@ON_LINUX
async def test_processes_are_served_in_order(path: Path) -> None:
    """Fair turns: one process waits for the turn, the others for the line."""
    holder = taken(process(path))
    served: list[int] = []

    async def wait(number: int, turn: FileTurn) -> None:
        request = await turn.acquire(10.0)
        assert request is not None
        served.append(number)
        request.release()

    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(wait(number, process(path))))
        in_line = number  # the first waits for the turn
        await until(lambda: (blocked(path, "turn"), blocked(path, "line")) == (1, in_line))  # noqa: B023
    holder.release()
    await asyncio.gather(*tasks)
    assert served == list(range(5))


async def test_its_thread_is_another_holder(path: Path) -> None:
    """A lock held by the thread excludes all other holders, even in the same process."""
    one, other = process(path), process(path)
    request = taken(one)
    task = await start(path, other)
    request.release()
    second = await task
    assert second is not None
    assert other.acquire_nowait() is None
    second.release()
    await until(lambda: is_free(path))


class TestPoliteness:
    """A process that has had the turn leaves it to waiting ones that have not woken up yet."""

    async def test_after_others_were_seen(self, path: Path, calls: Calls) -> None:
        """Fair turns: the process finds that another has the line, and leaves the turn to it.

        A                       | B
                                | has the line, is not awake yet
        acquire_nowait() → None    |
        """
        clock = Clock()
        one, other = process(path, clock), process(path)
        request = taken(other)
        assert one.acquire_nowait() is None  # noticed
        request.release()
        taken(one).release()
        assert other._line.acquire_nowait()
        assert one.acquire_nowait() is None
        other._line.release()
        taken(one).release()

    async def test_for_a_moment_only(self, path: Path) -> None:
        """A process that died or was stopped while in line keeps no other process waiting."""
        clock = Clock()
        one, other = process(path, clock), process(path)
        request = taken(other)
        assert one.acquire_nowait() is None
        request.release()
        taken(one).release()
        assert other._line.acquire_nowait()
        clock.now += file_turn._POLITE_SECONDS
        taken(one).release()

    async def test_costs_nothing_where_nobody_is(self, path: Path, calls: Calls) -> None:
        """A second after others were noticed, the cost is two system calls again."""
        clock = Clock()
        one, other = process(path, clock), process(path)
        request = taken(other)
        assert one.acquire_nowait() is None
        request.release()
        taken(one).release()
        before = calls.count
        taken(one).release()
        assert calls.count == before + 4
        clock.now += file_turn._REMEMBER_SECONDS
        before = calls.count
        taken(one).release()
        taken(one).release()
        assert calls.count == before + 4


class TestStoppedInLine:
    """A process that was stopped (Ctrl-Z, a debugger) as the first in line."""

    async def test_it_is_passed(self, path: Path) -> None:
        """It neither takes the free turn nor lets others: after half a second they pass it.

        Holder          | First in line | One
                        | has the line, |
                        | is stopped    | waits for the line
        releases it     |               |
                        |               | after half a second: is the turn free?
        """
        holder, first, one = process(path), process(path), process(path)
        request = taken(holder)
        assert first._line.acquire_nowait()
        task = await start(path, one)
        request.release()
        assert one._waiting is not None
        one._waiting._wake()  # the time has passed
        passed = await task
        assert passed is not None
        assert holder.acquire_nowait() is None
        passed.release()
        first._line.release()
        await until(lambda: is_free(path))

    async def test_the_turn_is_not_free(self, path: Path) -> None:
        """The holder is not disturbed, and the wait continues."""
        holder, one = process(path), process(path)
        request = taken(holder)
        task = await start(path, one)
        assert one._waiting is not None
        one._waiting._wake()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        request.release()
        second = await task
        assert second is not None
        second.release()

    async def test_sooner_the_next_time(self, path: Path) -> None:
        """Later waits are shorter than half a second, until the line has moved on."""
        holder, first, one = process(path), process(path), process(path)
        assert first._line.acquire_nowait()
        for expected in (file_turn._PATIENT_SECONDS, file_turn._IMPATIENT_SECONDS):
            assert one._patience == expected
            request = taken(holder)
            task = asyncio.create_task(one.acquire(10.0))
            await asyncio.sleep(0)
            request.release()
            assert one._waiting is not None
            one._waiting._wake()
            passed = await task
            assert passed is not None
            passed.release()
        request = taken(holder)
        first._line.release()
        task = asyncio.create_task(one.acquire(10.0))
        await until(lambda: one._patience == file_turn._PATIENT_SECONDS)
        request.release()
        last = await task
        assert last is not None
        last.release()

"""The turn between processes. Two objects on a file are to each other as two processes are."""

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
    """One to take it and one to give it back, again and again; no thread is started."""
    turn, before = process(path), waiting_threads()
    for number in range(1, 4):
        taken(turn).release()
        assert calls.count == 2 * number
    assert not waiting_threads() - before


async def test_one_process_at_a_time(path: Path) -> None:
    """Serialized writes: who does not have it does not get it, until it is given back."""
    one, other = process(path), process(path)
    request = taken(one)
    assert other.acquire_nowait() is None
    request.release()
    taken(other).release()


async def test_given_back_twice(path: Path) -> None:
    """A request that has ended is nothing to whoever has the turn now."""
    one, other = process(path), process(path)
    request = taken(one)
    request.release()
    second = taken(one)
    request.release()
    assert other.acquire_nowait() is None
    second.release()


async def test_waiting_in_the_kernel(path: Path) -> None:
    """No polling: who waits is woken when the turn is given back; the loop goes on meanwhile."""
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
    """Fair turns: one waits for the turn, the others for the line."""
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
    """What the thread has, nobody takes beside it: not in the same process either."""
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
    """Who has had the turn leaves it to those who wait, and are not awake yet."""

    async def test_after_others_were_seen(self, path: Path, calls: Calls) -> None:
        """Fair turns.

        A                       | B
                                | has the line, is not awake yet
        acquire_nowait() → None    |
        """
        clock = Clock()
        one, other = process(path, clock), process(path)
        request = taken(other)
        assert one.acquire_nowait() is None  # seen
        request.release()
        taken(one).release()
        assert other._line.acquire_nowait()
        assert one.acquire_nowait() is None
        other._line.release()
        taken(one).release()

    async def test_for_a_moment_only(self, path: Path) -> None:
        """A process that has died in line, or was stopped there, keeps nobody waiting."""
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
        """A second after others were seen, it is two system calls again."""
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
    """A process that is first in line, and was stopped there (Ctrl-Z, a debugger)."""

    async def test_it_is_passed(self, path: Path) -> None:
        """It neither takes the free turn nor lets others: after half a second they go past it.

        Holder          | First in line | One
                        | has the line, |
                        | is stopped    | waits for the line
        gives it back   |               |
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
        """Who has it is not disturbed; the wait goes on."""
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
        """Nobody waits half a second each time; and again as long when the line has moved on."""
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

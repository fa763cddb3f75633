"""Waiting for the turn between processes, and giving up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool.turn import file_requests, file_turn
from sa_sqlite_pool.turn.file_requests import FileLockRequest
from sa_sqlite_pool.turn.file_turn import FileTurn
from tests.helpers import until
from tests.turn.file_turns import Clock, path, process, start, taken
from tests.turn.locks import (
    Calls,
    blocked,
    calls,
    is_free,
    wait_until,
    waiting_threads,
)
from tests.turn.steps import Meanwhile, every_step

__all__ = ["calls", "path"]

FILES = file_requests.__file__, file_turn.__file__


def granted(turn: FileTurn) -> bool:
    assert turn._waiting is not None
    return bool(turn._waiting._answers)


class TestGivingUp:
    """A waiter leaves nothing behind."""

    async def test_time_is_over(self, path: Path) -> None:
        """It acquires nothing, and others acquire the turn when it is free."""
        one, other = process(path), process(path)
        request = taken(one)
        assert await other.acquire(0.0) is None
        request.release()
        await until(lambda: is_free(path))

    async def test_the_next_has_its_place(self, path: Path) -> None:
        """Its thread already waits in the kernel, and the process's next task takes its place."""
        one, other = process(path), process(path)
        request = taken(one)
        task = await start(path, other)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        again = asyncio.create_task(other.acquire(10.0))
        await asyncio.sleep(0)
        assert blocked(path, "turn") == 1
        assert blocked(path, "line") == 0
        request.release()
        second = await again
        assert second is not None
        second.release()
        await until(lambda: is_free(path))

    async def test_cancelled_after_it_was_granted(self, path: Path, loop_errors: list[Any]) -> None:
        """Clean cancellation: a turn that was granted already is released.

        Thread           | Task
        has the turn     | (woken, has not run yet)
                         | cancelled: releases it
        """
        one, other = process(path), process(path)
        request = taken(one)
        task = await start(path, other)
        request.release()
        wait_until(lambda: granted(other))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: is_free(path))
        assert loop_errors == []

    async def test_time_is_over_after_it_was_granted(
        self, path: Path, loop_errors: list[Any]
    ) -> None:
        """A granted turn is accepted, because the time-out limits only the wait."""
        one, other = process(path), process(path)
        request = taken(one)
        task = await start(path, other)
        request.release()
        wait_until(lambda: granted(other))
        assert other._waiting is not None
        other._waiting._wake()  # the timer is first
        second = await task
        assert second is not None
        assert not is_free(path)
        second.release()
        assert loop_errors == []

    async def test_sent_away_at_any_moment(self, path: Path) -> None:
        """Another thread does so as the time ends: with its error or not, never with a turn."""
        clock = Clock()
        one, other, owner = process(path), process(path, clock), object()
        request = taken(one)
        for step, note in every_step():
            waiting = other.acquire(10.0, owner)
            waiting.send(None)
            assert other._waiting is not None
            ends: list[object] = []

            def time_is_over() -> None:
                assert other._waiting is not None
                clock.now += 10.0
                other._waiting._wake()
                ends.append(outcome(waiting))  # noqa: B023

            with Meanwhile(FILES, step, time_is_over) as meanwhile:
                other.send_away(owner, lambda: ValueError("closed"))
            note(meanwhile)
            if not meanwhile.happened:
                time_is_over()
            assert ends in ([None], ["closed"]), step
        request.release()

    async def test_sent_away_with_the_turn(self, path: Path) -> None:
        """Too late: the task continues with the turn."""
        one, other, owner = process(path), process(path), object()
        request = taken(one)
        task = asyncio.create_task(other.acquire(10.0, owner))
        await until(lambda: blocked(path, "turn"))
        request.release()
        wait_until(lambda: granted(other))
        other.send_away(owner, lambda: ValueError("closed"))
        second = await task
        assert second is not None
        second.release()

    async def test_withdrawn_while_it_is_granted(self, path: Path) -> None:
        """Either the thread or the withdrawing task releases the lock."""
        lock = process(path)._turn
        for step, note in every_step():
            request = FileLockRequest(lock, time.monotonic, None)
            request.prepare()
            assert lock.acquire_nowait()
            with Meanwhile(FILES, step, request.withdraw) as meanwhile:
                was_granted = request.grant()
            note(meanwhile)
            if not meanwhile.happened:
                request.withdraw()
            assert is_free(path) == was_granted, step
            lock.release()

    async def test_cancelled_while_it_is_sent_away(self, path: Path, calls: Calls) -> None:
        """It holds nothing and releases nothing; by then, the lock may belong to the next task."""
        clock = Clock()
        one, other, owner = process(path), process(path, clock), object()
        request = taken(one)
        for step, note in every_step():
            waiting = other.acquire(10.0, owner)
            waiting.send(None)
            await until(lambda: blocked(path, "turn") == 1)
            before = calls.count
            with Meanwhile(FILES, step, waiting.close) as meanwhile:
                other.send_away(owner, lambda: ValueError("closed"))
            note(meanwhile)
            waiting.close()
            assert calls.count == before, step
        request.release()

    async def test_sent_away(self, path: Path) -> None:
        """Tasks that wait for the object being closed get the error; others keep waiting."""
        one, other = process(path), process(path)
        request = taken(one)
        owner, somebody = object(), object()
        task = asyncio.create_task(other.acquire(10.0, owner))
        await asyncio.sleep(0)
        other.send_away(somebody, lambda: ValueError("not meant"))
        other.send_away(owner, lambda: ValueError("closed"))
        with pytest.raises(ValueError, match="closed"):
            await task
        request.release()
        await until(lambda: is_free(path))

    def test_its_loop_is_closed(self, path: Path) -> None:
        """The thread releases a lock that no task can accept any more."""
        one, other = process(path), process(path)
        loop = asyncio.new_event_loop()

        async def begin() -> tuple[FileLockRequest, asyncio.Task[FileLockRequest | None]]:
            return taken(one), await start(path, other)

        request, task = loop.run_until_complete(begin())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        request.release()
        wait_until(lambda: is_free(path))

    def test_one_of_a_dead_loop_ends_beside_another(self, path: Path) -> None:
        """The current waiter can still be found and sent away."""
        one, other, owner = process(path), process(path), object()
        loop = asyncio.new_event_loop()

        async def begin() -> tuple[FileLockRequest, asyncio.Task[FileLockRequest | None]]:
            return taken(one), await start(path, other)

        request, dead = loop.run_until_complete(begin())
        dead._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

        async def wait() -> None:
            task = asyncio.create_task(other.acquire(10.0, owner))
            await asyncio.sleep(0)
            with contextlib.suppress(RuntimeError):  # from its timer, which has no loop either
                dead.get_coro().close()
            other.send_away(owner, lambda: ValueError("closed"))
            with pytest.raises(ValueError, match="closed"):
                await asyncio.wait_for(task, 5)

        asyncio.run(wait())
        request.release()

    async def test_no_timer_is_left(self, path: Path) -> None:
        """Once served, a timer would keep the files open until the time is over."""
        one, other = process(path), process(path)
        request = taken(one)
        task = asyncio.create_task(other.acquire(1000.0))
        await asyncio.sleep(0)
        request.release()
        second = await task
        assert second is not None
        second.release()
        kept = weakref.ref(other)
        del other, task, second
        gc.collect()
        await until(lambda: kept() is None)


def outcome(waiting: Any) -> object:
    """Return the outcome of ``turn.acquire()``, whose future is done."""
    try:
        waiting.send(None)
    except StopIteration as end:
        return end.value
    except ValueError as error:
        return str(error)
    raise AssertionError("it waits")


@pytest.fixture
async def loop_errors() -> list[Any]:
    """Return a list of the errors that the event loop would only log."""
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    return errors


async def test_the_thread_ends_with_the_turn(path: Path) -> None:
    """A closed file leaves no thread behind."""
    one, other = process(path), process(path)
    request = taken(one)
    before = waiting_threads()
    assert await other.acquire(0.0) is None
    [thread] = waiting_threads() - before
    del other
    request.release()
    await until(lambda: not thread.is_alive())
    assert is_free(path)

"""The end of a session is not cut short."""

from __future__ import annotations

import asyncio

import pytest

from sa_sqlite_pool.sessions.ending import to_its_end


class Ending:
    """Waits twice for ``event``, then notes that it has come to its end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.event = asyncio.Event()
        self.ended = False
        self._error = error

    async def __call__(self) -> None:
        for _ in range(2):
            await self.event.wait()
            self.event.clear()
        self.ended = True
        if self._error is not None:
            raise self._error

    async def go_on(self) -> None:
        """To its end."""
        while not self.ended:
            self.event.set()
            await asyncio.sleep(0)


async def test_nothing_to_wait_for() -> None:
    """It has ended when the next statement runs, and nobody else has."""
    other = asyncio.create_task(asyncio.sleep(0))
    tasks = len(asyncio.all_tasks())

    async def nothing() -> None:
        assert len(asyncio.all_tasks()) == tasks

    await to_its_end(nothing())
    assert not other.done()
    await other


async def test_it_is_waited_for() -> None:
    ending = Ending()
    task = asyncio.create_task(to_its_end(ending()))
    await asyncio.sleep(0)
    assert not task.done()
    await ending.go_on()
    await task


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancellation(times: int) -> None:
    """Or several: raised when it has come to its end."""
    ending = Ending()
    task = asyncio.create_task(to_its_end(ending()))
    for _ in range(times):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    await ending.go_on()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_error(cancelled: bool) -> None:
    """It is raised, cancelled or not."""
    ending = Ending(ValueError("broken"))
    task = asyncio.create_task(to_its_end(ending()))
    await asyncio.sleep(0)
    if cancelled:
        task.cancel()
    await ending.go_on()
    with pytest.raises(ValueError, match="broken"):
        await task


async def test_an_error_at_once() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await to_its_end(fail())


async def test_what_it_waits_for_fails() -> None:
    """The error arrives where it is waited for, and may be handled there."""
    future = asyncio.get_running_loop().create_future()
    handled = False

    async def handle() -> None:
        nonlocal handled
        with pytest.raises(ValueError, match="broken"):
            await future
        handled = True

    task = asyncio.create_task(to_its_end(handle()))
    await asyncio.sleep(0)
    future.set_exception(ValueError("broken"))
    await task
    assert handled

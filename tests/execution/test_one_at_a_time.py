"""A gate that one task passes at a time, in order of arrival."""

from __future__ import annotations

import asyncio

import pytest

from sa_sqlite_pool.execution.one_at_a_time import OneAtATime, OneAtATimeStatistics


class Line:
    """Tasks that pass the gate, and stay inside until the event is set."""

    def __init__(self) -> None:
        self.gate = OneAtATime()
        self.inside: list[str] = []
        self.passed: list[str] = []
        self.leave = asyncio.Event()

    async def come(self, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._pass(name), name=name)
        await asyncio.sleep(0)
        return task

    async def _pass(self, name: str) -> None:
        await self.gate.enter()
        try:
            self.inside.append(name)
            assert self.inside == [name]
            await self.leave.wait()
        finally:
            self.inside.remove(name)
            self.passed.append(name)
            self.gate.leave()


async def test_in_order_of_arrival() -> None:
    """One is inside and all others wait; a task that arrives when one leaves does not overtake."""
    line = Line()
    tasks = [await line.come(name) for name in "abc"]
    assert line.inside == ["a"]
    line.leave.set()
    tasks.append(await line.come("d"))
    await asyncio.gather(*tasks)
    assert line.passed == ["a", "b", "c", "d"]
    assert not line.gate.busy


async def test_the_gate_is_never_free_between_two() -> None:
    """Ownership is passed on directly: ``busy`` may be set without waiting where it is False."""
    gate = OneAtATime()
    gate.busy = True
    waiting = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    gate.leave()
    assert gate.busy
    await waiting
    gate.leave()
    assert not gate.busy


async def test_who_is_cancelled_while_waiting_leaves_no_place() -> None:
    """The others continue."""
    line = Line()
    tasks = [await line.come(name) for name in "abc"]
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert len(line.gate.waiting) == 1
    line.leave.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert line.passed == ["a", "c"]
    assert not line.gate.busy


async def test_who_is_cancelled_after_the_gate_was_handed_over_passes_it_on() -> None:
    """The cancellation falls between leaving and waking up."""
    # First      | Second               | Third
    # leave() →  | owns the gate        |
    #            | cancelled: leave() → | owns the gate
    line = Line()
    tasks = [await line.come(name) for name in "abc"]
    line.leave.set()
    await asyncio.sleep(0)
    assert line.passed == ["a"]
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    await tasks[2]
    assert line.passed == ["a", "c"]
    assert not line.gate.busy


async def test_who_is_cancelled_before_the_gate_is_handed_over_is_passed_over() -> None:
    """Its place is gone by the time it wakes up, and only the cancellation is raised."""
    # First    | Second
    #          | cancelled, not yet awake
    # leave()  |
    #          | wakes up
    gate = OneAtATime()
    gate.busy = True
    second = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    second.cancel()
    gate.leave()
    assert not gate.busy
    with pytest.raises(asyncio.CancelledError):
        await second
    assert not gate.busy


def test_a_loop_that_has_ended_keeps_nobody_waiting() -> None:
    """A task that waited there will never run again."""
    gate = OneAtATime()
    gate.busy = True
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        loop.call_soon(loop.stop)
        await gate.enter()

    waiting = loop.create_task(wait())
    loop.run_forever()
    loop.close()
    gate.leave()
    assert not gate.busy
    waiting.cancel = lambda msg=None: False  # type: ignore[method-assign]
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_statistics() -> None:
    """They are a frozen value: whether a task is inside, and how many wait."""
    line = Line()
    before = line.gate.statistics()
    tasks = [await line.come(name) for name in "abc"]
    assert before == OneAtATimeStatistics(locked=False, tasks_waiting=0)
    assert line.gate.statistics() == OneAtATimeStatistics(locked=True, tasks_waiting=2)
    tasks[1].cancel()
    line.leave.set()
    await asyncio.wait(tasks)
    assert line.gate.statistics() == before

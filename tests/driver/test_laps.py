"""A task that never waits gives way when its time is over."""

from __future__ import annotations

import asyncio
import time

import pytest

from sa_sqlite_pool.driver import laps as module
from sa_sqlite_pool.driver.laps import Laps, laps


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In units of what a task may take."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(module, "_SECONDS", 1.0)
    monkeypatch.setattr(module, "_SECONDS_HOLDING", 2.0)
    return clock


@pytest.fixture
async def own() -> Laps:
    return laps(asyncio.get_running_loop())


async def test_within_its_time_a_task_goes_on(own: Laps, clock: Clock) -> None:
    """And a little longer while it holds what others may need."""
    assert not own.pause(holding=False).long
    clock.now = 0.9
    assert not own.pause(holding=False).long
    clock.now = 1.9
    assert not own.pause(holding=True).long
    assert own.pause(holding=False).long
    clock.now = 2.0
    assert own.pause(holding=True).long


async def test_its_time_begins_anew_in_the_next_lap(own: Laps, clock: Clock) -> None:
    own.pause(holding=False)
    clock.now = 5.0
    pause = own.pause(holding=False)
    assert pause.long
    await pause
    assert not own.pause(holding=False).long
    clock.now = 5.9
    assert not own.pause(holding=False).long
    clock.now = 6.0
    assert own.pause(holding=False).long


async def test_each_task_has_its_own_time(own: Laps, clock: Clock) -> None:
    """Those of one lap follow one another; what came before does not count."""
    turns: list[str] = []

    async def use(name: str) -> None:
        for _ in range(4):
            await own.pause(holding=False)
            turns.append(name)
            clock.now += 0.5

    await asyncio.gather(use("a"), use("b"))
    assert "".join(turns) == "aabbaabb"


async def test_a_pause_lets_all_others_go_on(own: Laps, clock: Clock) -> None:
    """Once each; a short one lets nobody."""
    others: list[int] = []

    async def other(number: int) -> None:
        others.append(number)

    tasks = [asyncio.create_task(other(number)) for number in range(3)]
    await own.pause(holding=False)
    assert others == []
    clock.now = 1.0
    await own.pause(holding=False)
    assert others == [0, 1, 2]
    await asyncio.gather(*tasks)


def test_each_loop_has_its_own() -> None:
    async def mine() -> Laps:
        loop = asyncio.get_running_loop()
        assert laps(loop) is laps(loop)
        assert laps(loop).belongs_to(loop)
        return laps(loop)

    first, second = asyncio.run(mine()), asyncio.run(mine())
    assert first is not second

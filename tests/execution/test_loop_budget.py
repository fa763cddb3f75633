"""Work that runs inline yields the loop to others from time to time."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from sa_sqlite_pool.execution import loop_budget as module
from sa_sqlite_pool.execution.loop_budget import LoopBudget, LoopBudgetStatistics
from sa_sqlite_pool.system.clock import time
from sa_sqlite_pool.system.loop_state import of_running_loop


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Admit two seconds of work per lap, and expect each piece of work to take one second."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(module, "LAP_SECONDS", 2.0)
    monkeypatch.setattr(module, "HOLDING_SECONDS", 2.0)
    monkeypatch.setattr(module, "_FIRST_GUESS", 1.0)
    return clock


@pytest.fixture
async def own(clock: Clock) -> LoopBudget:
    return of_running_loop(LoopBudget)


async def enter(own: LoopBudget) -> float:
    return 0.0 if own.enter_nowait() else await own.enter()


class Workers:
    """Tasks that perform one piece of work after the other, and note who did so in which lap."""

    def __init__(self, own: LoopBudget, clock: Clock, seconds: float = 1.0) -> None:
        self.own = own
        self.clock = clock
        self.seconds = seconds
        self.laps = [""]
        asyncio.get_running_loop().call_soon(self._next_lap)

    def _next_lap(self) -> None:
        self.laps.append("")
        asyncio.get_running_loop().call_soon(self._next_lap)

    async def work(self, name: str, times: int) -> None:
        for _ in range(times):
            await enter(self.own)
            worker = object()
            self.own.begin_work(worker)
            self.clock.now += self.seconds
            self.laps[-1] += name
            self.own.end_work(worker)

    @property
    def order(self) -> list[str]:
        return [lap for lap in self.laps if lap]


# -- admitting -------------------------------------------------------------------------------------


async def test_a_lap_lets_in_so_much_work(own: LoopBudget, clock: Clock) -> None:
    """Tasks are admitted in order of arrival: one that has worked follows those that wait."""
    workers = Workers(own, clock)
    await asyncio.gather(*(workers.work(name, 2) for name in "abcde"))
    assert workers.order == ["aa", "bc", "de", "bc", "de"]


async def test_who_waits_is_not_overtaken(own: LoopBudget) -> None:
    """A task that arrives when there is room again does not overtake."""
    entered: list[str] = []

    async def come(name: str) -> None:
        await enter(own)
        entered.append(name)

    tasks = [asyncio.create_task(come(name)) for name in "abcdef"]
    while len(entered) < 2:
        await asyncio.sleep(0)
    tasks.append(asyncio.create_task(come("z")))
    await asyncio.gather(*tasks)
    assert entered == list("abcdefz")


async def test_long_work_is_let_in_too(own: LoopBudget, clock: Clock) -> None:
    """One per lap is admitted; the time that it takes is learned."""
    workers = Workers(own, clock, seconds=50.0)
    await asyncio.gather(*(workers.work(name, 1) for name in "abcd"))
    assert workers.order == ["ab", "c", "d"]


async def test_short_work_fills_the_lap(own: LoopBudget, clock: Clock) -> None:
    own._mean = 0.5
    workers = Workers(own, clock, seconds=0.5)
    await asyncio.gather(*(workers.work(name, 1) for name in "abcdefgh"))
    assert workers.order == ["abcd", "efgh"]


async def test_the_rest_of_the_application_is_met_half_way(own: LoopBudget, clock: Clock) -> None:
    """If the rest takes long in each lap, the admitted tasks may take as long."""
    workers = Workers(own, clock)

    async def others() -> None:
        while len(workers.order) < 3 or len(workers.laps[-1]) > 0:
            clock.now += 8.0
            await asyncio.sleep(0)

    busy = asyncio.create_task(others())
    await asyncio.gather(*(workers.work(name, 1) for name in "abcdefghij"))
    await busy
    assert workers.order == ["ab", "cdef", "ghij"]


async def test_work_that_goes_on_in_a_thread_teaches_nothing(own: LoopBudget, clock: Clock) -> None:
    """The time it occupied the loop is not known."""
    worker = object()
    assert own.enter_nowait()
    own.begin_work(worker)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.now += 1_000.0
    own.end_work(worker)
    assert own._mean == 1.0


async def test_nor_does_work_that_begins_later(own: LoopBudget, clock: Clock) -> None:
    """An admitted task may have waited for a connection, in laps that were not counted."""
    assert own.enter_nowait()
    await asyncio.sleep(0)
    assert not own._lap_scheduled
    worker = object()
    own.begin_work(worker)
    await asyncio.sleep(0)
    clock.now += 1_000.0
    own.end_work(worker)
    assert own._mean == 1.0


async def test_who_is_cancelled_outside_leaves_its_room_to_others(own: LoopBudget) -> None:
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(enter(own)) for _ in range(3)]
    loop.call_soon(tasks[0].cancel)  # while it waits
    assert own.enter_nowait()
    assert own.enter_nowait()
    await asyncio.sleep(0)  # they arrive, the first leaves, and a lap begins that has room for two
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [True, True, True]
    assert tasks[0].cancelled()


async def test_it_says_how_long_it_took(own: LoopBudget, clock: Clock) -> None:
    """The time counts towards the deadline of the call."""

    def later() -> None:
        clock.now += 3.0

    waiting = asyncio.create_task(enter(own))
    asyncio.get_running_loop().call_soon(later)
    assert own.enter_nowait()
    assert own.enter_nowait()
    assert await waiting == 3.0


async def test_it_begins_to_wait_in_a_later_lap(own: LoopBudget) -> None:
    """It waits in a later lap if the end of a block continues in another task."""
    while own.enter_nowait():
        pass
    entering = own.enter()
    await asyncio.sleep(0)
    assert not own._lap_scheduled
    task = asyncio.create_task(entering)
    await asyncio.sleep(0)
    assert task.done()
    assert own.statistics() == LoopBudgetStatistics(room=1, tasks_waiting=0, mean_seconds=1.0)


async def test_an_idle_loop_is_left_alone(own: LoopBudget) -> None:
    """Nothing is called in laps without a request."""
    assert own.enter_nowait()
    assert own._lap_scheduled
    await asyncio.sleep(0)
    assert not own._lap_scheduled


async def test_statistics(own: LoopBudget) -> None:
    """They are a frozen value: how many are still admitted, and how many wait."""
    assert own.statistics() == LoopBudgetStatistics(2, 0, 1.0)
    tasks = [asyncio.create_task(enter(own)) for _ in range(5)]
    await asyncio.sleep(0)
    assert own.statistics() == LoopBudgetStatistics(room=0, tasks_waiting=3, mean_seconds=1.0)
    tasks[4].cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert own.statistics() == LoopBudgetStatistics(2, 0, 1.0)


# -- holding ---------------------------------------------------------------------------------------


async def test_within_its_time_a_task_goes_on(own: LoopBudget, clock: Clock) -> None:
    assert not own.pause(asyncio.current_task()).long
    clock.now += 1.9
    assert not own.pause(asyncio.current_task()).long
    clock.now += 0.1
    assert own.pause(asyncio.current_task()).long


async def test_its_time_begins_anew_in_the_next_lap(own: LoopBudget, clock: Clock) -> None:
    own.pause(asyncio.current_task())
    clock.now += 5.0
    pause = own.pause(asyncio.current_task())
    assert pause.long
    await pause
    assert not own.pause(asyncio.current_task()).long
    clock.now += 1.9
    assert not own.pause(asyncio.current_task()).long
    clock.now += 0.1
    assert own.pause(asyncio.current_task()).long


async def test_each_task_has_its_own_time(own: LoopBudget, clock: Clock) -> None:
    """Tasks of one lap follow one another; earlier work does not count."""
    turns: list[str] = []

    async def use(name: str) -> None:
        for _ in range(4):
            await own.pause(asyncio.current_task())
            turns.append(name)
            clock.now += 1.0

    await asyncio.gather(use("a"), use("b"))
    assert "".join(turns) == "aabbaabb"


async def test_a_pause_lets_all_others_go_on(own: LoopBudget, clock: Clock) -> None:
    """Each runs once; a short pause lets no other task run."""
    others: list[int] = []

    async def other(number: int) -> None:
        others.append(number)

    tasks = [asyncio.create_task(other(number)) for number in range(3)]
    await own.pause(asyncio.current_task())
    assert others == []
    clock.now += 2.0
    await own.pause(asyncio.current_task())
    assert others == [0, 1, 2]
    await asyncio.gather(*tasks)


def test_a_loop_that_is_gone_is_forgotten() -> None:
    async def mine() -> weakref.ref[asyncio.AbstractEventLoop]:
        own = of_running_loop(LoopBudget)
        assert own.enter_nowait()
        assert not own.pause(asyncio.current_task()).long
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(mine())
    gc.collect()
    assert loop() is None

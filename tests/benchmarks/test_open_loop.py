"""Requests arrive at the same moments for all contenders, and do not wait for each other."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import mean
from time import perf_counter

import pytest

from benchmarks.databases import items
from benchmarks.loads import LOADS
from benchmarks.loads.base import Plan
from benchmarks.measuring import ticking
from benchmarks.measuring.clocks import Tally
from benchmarks.ways.contenders import Pace, Part, Work
from benchmarks.ways.engines import PRAGMAS, Pragmas
from benchmarks.ways.open_loop import OpenLoop, schedule
from benchmarks.ways.settings import Settings
from benchmarks.ways.steps import Operation


def part(name: str, pace: Pace, *, writes: bool = False) -> Part:
    return Part(name, "", "", 1, 100, items.read, writes=writes, pace=pace)


def work(*parts: Part, seconds: float = 0.1, seed: int = 0) -> Work:
    return Work(parts, seconds=seconds, warm_up_per_task=2, seed=seed, pragmas=PRAGMAS)


class Slow:
    """A way that answers no request before ``others`` arrive after the warm-up; it counts them."""

    def __init__(self, others: int) -> None:
        self.asked: list[float] = []
        self._others = others
        self._enough = asyncio.Event()

    async def read(self, operation: Operation, key: int) -> None:
        self.asked.append(perf_counter())
        if len(self.asked) <= 2:
            return
        if len(self.asked) == 2 + self._others:
            self._enough.set()
        await self._enough.wait()

    write = read

    async def settings(self, *, writes: bool) -> Settings:
        return Settings("Slow", 1, 0, {}, "")


def through(way: Slow) -> OpenLoop:
    @asynccontextmanager
    async def opened(_database: Path, _pragmas: Pragmas) -> AsyncIterator[Slow]:
        yield way

    return OpenLoop("slow", opened)


def begun(tally: Tally) -> list[float]:
    """Return the starting times of the acknowledged requests."""
    pairs = zip(tally.acknowledged_at, tally.latencies_s, strict=True)
    return sorted(ended - latency for ended, latency in pairs)


def test_no_request_waits_for_an_answer() -> None:
    """All requests are sent before the first answer, and each one's time begins on its arrival."""
    asked = work(part("reads", Pace(200)), seconds=0.2)
    arrivals = schedule(asked)
    way = Slow(others=len(arrivals))
    measurement = through(way).run(Path(), asked)["reads"]
    assert (measurement.warm_up.acknowledged, len(way.asked) - 2) == (2, len(arrivals))
    assert measurement.measured.acknowledged == len(arrivals)
    began = begun(measurement.measured)
    assert [at - began[0] for at in began] == pytest.approx([one.after_s for one in arrivals])


def test_a_request_comes_when_it_is_due() -> None:
    """It is not sent early, because it would be served before its time had begun."""
    asked = work(part("reads", Pace(200)), seconds=0.2)
    way = Slow(others=1)
    began = begun(through(way).run(Path(), asked)["reads"].measured)
    assert all(seen > due for seen, due in zip(way.asked[2:], began, strict=True))


def test_moments_are_random_and_the_same_for_all() -> None:
    """Each round has its own, except with an even pace; all lie within the duration."""
    paced = (part("reads", Pace(500)), part("scans", Pace(2, evenly=True)))

    def moments(seed: int, name: str) -> list[float]:
        found = schedule(work(*paced, seconds=10.0, seed=seed))
        assert found == sorted(found, key=lambda one: one.after_s)
        return [one.after_s for one in found if one.part.name == name]

    reads = moments(1, "reads")
    assert reads == moments(1, "reads") != moments(2, "reads")
    assert 0.0 == reads[0] < reads[-1] < 10.0
    assert len(reads) == pytest.approx(5_000, rel=0.05)
    assert moments(1, "scans") == moments(2, "scans") == [0.5 * number for number in range(20)]


def test_gaps_are_exponential() -> None:
    """They exceed their mean as often as gaps between independent requests do."""
    moments = list(Pace(100).moments(100.0, random.Random(7)))
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert mean(gaps) == pytest.approx(0.01, rel=0.05)
    assert mean(gap > 0.01 for gap in gaps) == pytest.approx(0.368, abs=0.02)


def test_one_of_each_in_the_shortest_run() -> None:
    paced = (part("reads", Pace(500)), part("scans", Pace(0.5, evenly=True)))
    assert [one.part.name for one in schedule(work(*paced, seconds=1e-6))] == ["reads", "scans"]


def test_the_load() -> None:
    """500 reads and 80 writes a second, a scan every 1.5 s; it lasts ten times the usual time."""
    [load] = LOADS["open-loop"](Plan())
    paces = {one.name: one.pace for one in load.parts}
    assert paces == {"reads": Pace(500), "writes": Pace(80), "scans": Pace(1 / 1.5, evenly=True)}
    assert [one.writes for one in load.parts] == [False, True, False]
    assert load.times == 10


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
def test_the_other_process_ends_with_a_run_that_fails(error: type[BaseException]) -> None:
    """It does not prevent the run from failing."""

    class Broken(Slow):
        async def settings(self, *, writes: bool) -> Settings:
            raise error

    with pytest.raises(error):
        through(Broken(0)).run(Path(), work(part("reads", Pace(1)), seconds=100.0))


@pytest.mark.parametrize(
    ("program", "error"), [("", RuntimeError), ("print('.', flush=True)", AssertionError)]
)
def test_another_process_that_breaks_down_fails_the_run(
    program: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It breaks down before it starts, or before it has sent all moments: no wait is endless."""
    broken = tmp_path / "ticking.py"
    broken.write_text(program)
    monkeypatch.setattr(ticking, "__file__", str(broken))
    with pytest.raises(error):
        through(Slow(1)).run(Path(), work(part("reads", Pace(100))))

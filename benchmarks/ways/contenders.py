"""Contenders: a way of accessing a database, and what runs the work: tasks of a loop, or a thread.

A further *kind* of contender is one more class with a ``name`` and a ``run()``.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Protocol

from ..measuring.clocks import Meter, Tally, Usage, loop_lag
from ..measuring.event_loops import RunLoop
from .base import Open, OpenSync, SyncWay, Way
from .engines import Pragmas
from .settings import Settings
from .steps import Operation

STOCK = "stock"
"""The baseline of all comparisons."""

SYNCHRONOUS = "synchronous"


@dataclass(frozen=True, slots=True)
class Pace:
    """The rate of requests, at random intervals or evenly spread. The first arrives at once."""

    a_second: float
    evenly: bool = False

    def moments(self, seconds: float, chooser: random.Random) -> Iterator[float]:
        """Yield the times of requests, in seconds after the start."""
        at = 0.0
        while at < seconds:
            yield at
            at += 1 / self.a_second if self.evenly else chooser.expovariate(self.a_second)


_KEYS = 10_000
"""The number of keys drawn for a part; then they repeat."""

_WARM_UP = 250
"""The maximum of operations for a part: a thousand tasks do not need a thousand connections."""


@dataclass(frozen=True, slots=True)
class Part:
    """The work that some tasks repeat until the time is up.

    :param unit: the unit that is counted per second
    :param rows: each operation receives a random key from 1 to this number
    :param writes: whether it runs in a transaction that is committed
    :param pace: the rate of requests in an open loop, whether or not earlier requests have ended;
        there, ``tasks`` is the number of tasks in the warm-up
    """

    name: str
    title: str
    unit: str
    tasks: int
    rows: int
    operation: Operation
    writes: bool = False
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one run: all ``parts`` concurrently.

    :param warm_up_per_task: operations before the clock starts, which open connections, fill caches
        and compile statements
    :param in_line: start the clock when each task has done one operation: the wait is measured,
        not the arrival of so many tasks
    :param run: runs the event loop
    """

    parts: tuple[Part, ...]
    seconds: float
    warm_up_per_task: int
    seed: int
    pragmas: Pragmas
    in_line: bool = False
    run: RunLoop = asyncio.run

    @property
    def writes(self) -> bool:
        return any(part.writes for part in self.parts)

    def warm_up(self, part: Part) -> int:
        """Return the number of operations of ``part`` before the clock starts."""
        return min(self.warm_up_per_task * part.tasks, _WARM_UP)

    def keys(self, part: Part) -> Iterator[int]:
        """Return an endless sequence of random rows, the same for all contenders of a round.

        It is drawn in advance: drawing would take a part of the measured time.
        """
        chooser = random.Random(f"{self.seed} {part.name}")
        return cycle(chooser.choices(range(1, part.rows + 1), k=_KEYS))


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of one run of one contender, for one part of the work.

    ``in_time`` operations (None: all) were acknowledged within ``seconds``. ``overshoots_s`` are
    the delays with which the event loop woke its probe; None if there is no loop. The warm-up is
    everything that has ended when the clock starts; its times are discarded, its effects are in the
    file. ``usage`` covers all parts: a process has one clock.
    """

    settings: Settings
    seconds: float
    warm_up: Tally
    measured: Tally
    overshoots_s: list[float] | None
    in_time: int | None = None
    usage: Usage | None = None


Measurements = Mapping[str, Measurement]
"""Measurements by the name of the part."""


class Contender(Protocol):
    """One way of doing the work of a load."""

    @property
    def name(self) -> str:
        """The name in tables."""

    @property
    def without_wal(self) -> bool:
        """Whether it needs a file in SQLite's default journal mode."""

    def run(self, database: Path, work: Work) -> Measurements:
        """Run ``work`` on a file that is not open anywhere else, and close the file."""


class _Window:
    """The measured time. It starts, and calls ``on_open``, when all tasks are at work.

    Until then, tasks that have begun continue, so the last tasks to begin find a line.

    When the time is over, tasks begin nothing new. Operations in progress are awaited: their time
    counts, since the longest waits must not be left out, but they do not count as done in time.
    """

    def __init__(
        self, tasks: int, seconds: float, on_open: Callable[[], None] = lambda: None
    ) -> None:
        self._missing = tasks
        self._seconds = seconds
        self._on_open = on_open
        self._ends = math.inf

    def enter(self) -> None:
        """Register a task; each task calls this once."""
        self._missing -= 1
        if not self._missing:
            self._on_open()
            self._ends = perf_counter() + self._seconds

    @property
    def is_open(self) -> bool:
        return perf_counter() < self._ends

    def count(self, tally: Tally) -> int:
        """Return the number of operations acknowledged within the time."""
        started = self._ends - self._seconds
        return sum(started <= at < self._ends for at in tally.acknowledged_at)


@dataclass(frozen=True, slots=True)
class Concurrent:
    """Tasks of one event loop share one way, as the requests of a web server do."""

    name: str
    open: Open
    without_wal: bool = False

    def run(self, database: Path, work: Work) -> Measurements:
        return work.run(self._run(database, work))

    async def _run(self, database: Path, work: Work) -> Measurements:
        async with self.open(database, work.pragmas) as way:
            settings = await way.settings(writes=work.writes)
            keys = {part.name: work.keys(part) for part in work.parts}
            warm_up = {part.name: Tally() for part in work.parts}
            for part in work.parts:
                await prepare(way, part, work.warm_up(part), keys[part.name], warm_up[part.name])
            gc.collect()
            measured = {part.name: Tally() for part in work.parts}
            meter = Meter()

            def on_open() -> None:
                meter.start()
                for name, tally in warm_up.items():
                    tally.take_over(measured[name])

            window = _Window(sum(part.tasks for part in work.parts), work.seconds, on_open)
            async with loop_lag() as overshoots_s:
                await asyncio.gather(
                    *(
                        _repeat(
                            *(way, part, keys[part.name], measured[part.name], window),
                            in_line=work.in_line,
                        )
                        for part in work.parts
                        for _ in range(part.tasks)
                    )
                )
            usage = meter.usage(measured.values())
        return {
            name: Measurement(
                *(settings, work.seconds, warm_up[name], tally, overshoots_s),
                in_time=window.count(tally),
                usage=usage,
            )
            for name, tally in measured.items()
        }


async def prepare(way: Way, part: Part, count: int, keys: Iterator[int], tally: Tally) -> None:
    """Run ``count`` operations of ``part`` as its warm-up."""
    remaining = iter(range(count))
    operate = doing(way, part)

    async def share() -> None:
        for _ in remaining:
            with tally.operation():
                await operate(part.operation, next(keys))

    await asyncio.gather(*(share() for _ in range(min(part.tasks, count))))


async def _repeat(
    way: Way,
    part: Part,
    keys: Iterator[int],
    tally: Tally,
    window: _Window,
    *,
    in_line: bool,
) -> None:
    operate = doing(way, part)
    if in_line:
        with tally.operation():
            await operate(part.operation, next(keys))
    window.enter()
    while window.is_open:
        with tally.operation():
            await operate(part.operation, next(keys))


def doing(way: Way, part: Part) -> Callable[[Operation, int], Awaitable[None]]:
    """Return the method of ``way`` that runs ``part``."""
    return way.write if part.writes else way.read


@dataclass(frozen=True, slots=True)
class OneThread:
    """One operation after the other, without an event loop: for reference.

    Operations do not wait for each other here, so latencies are those of the operation alone.
    """

    name: str
    open: OpenSync
    without_wal: bool = False

    def run(self, database: Path, work: Work) -> Measurements:
        [part] = work.parts
        with self.open(database, work.pragmas) as way:
            settings = way.settings()
            keys, warm_up, measured = work.keys(part), Tally(), Tally()
            for _ in range(work.warm_up(part)):
                _do(way, part, keys, warm_up)
            gc.collect()
            meter = Meter()
            window = _Window(1, work.seconds, meter.start)
            window.enter()
            while window.is_open or not measured.latencies_s:
                _do(way, part, keys, measured)
            usage = meter.usage([measured])
        in_time = window.count(measured)
        found = Measurement(settings, work.seconds, warm_up, measured, None, in_time, usage)
        return {part.name: found}


def _do(way: SyncWay, part: Part, keys: Iterator[int], tally: Tally) -> None:
    operate = way.write if part.writes else way.read
    with tally.operation():
        operate(part.operation, next(keys))

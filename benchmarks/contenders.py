"""Ways of doing the same work: many tasks of one event loop, or one thread.

A further contender is one more line in a load's ``contenders``. A further *kind* of contender is
one more class with a ``name`` and a ``run()``.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from .measuring import Tally, loop_lag
from .settings import Settings, settings_of

WARM_UP_PER_TASK = 5
"""Operations each task does before the clock starts: connections open, caches fill."""


@dataclass(frozen=True, slots=True)
class Work:
    """A fixed number of operations, one for each key, shared by ``tasks``.

    Each task takes the next key when it is done with one, so the number of tasks at work stays
    the same to the end, also where a contender serves them unfairly.
    """

    keys: Sequence[int]
    tasks: int

    @property
    def warm_up(self) -> Sequence[int]:
        return self.keys[: WARM_UP_PER_TASK * self.tasks]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run of one contender gave.

    ``overshoots_s`` is how late the event loop woke its probe each time; None where there is no
    loop. The times of the warm-up are thrown away; its effects are in the file.
    """

    settings: Settings
    seconds: float
    warm_up: Tally
    measured: Tally
    overshoots_s: list[float] | None


class Contender(Protocol):
    """One way of doing the work of a load."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def run(self, database: Path, work: Work) -> Measurement:
        """Do all of ``work`` on a file that nobody else has open, and let go of the file."""


@dataclass(frozen=True, slots=True)
class Concurrent:
    """Tasks of one event loop share one engine, as the requests of a web server do."""

    name: str
    engine: Callable[[Path], AsyncEngine]
    operate: Callable[[AsyncEngine, int], Awaitable[None]]

    def run(self, database: Path, work: Work) -> Measurement:
        return asyncio.run(self._run(database, work))

    async def _run(self, database: Path, work: Work) -> Measurement:
        engine = self.engine(database)
        try:
            return await self._measure(engine, work)
        finally:
            await engine.dispose()

    async def _measure(self, engine: AsyncEngine, work: Work) -> Measurement:
        async with engine.connect() as connection:
            settings = await connection.run_sync(settings_of)
        warm_up = await self._share(engine, work.warm_up, work.tasks)
        gc.collect()
        async with loop_lag() as overshoots_s:
            started = perf_counter()
            measured = await self._share(engine, work.keys, work.tasks)
            seconds = perf_counter() - started
        return Measurement(settings, seconds, warm_up, measured, overshoots_s)

    async def _share(self, engine: AsyncEngine, keys: Iterable[int], tasks: int) -> Tally:
        tally = Tally()
        remaining = iter(keys)
        await asyncio.gather(*(self._task(engine, remaining, tally) for _ in range(tasks)))
        return tally

    async def _task(self, engine: AsyncEngine, remaining: Iterator[int], tally: Tally) -> None:
        for key in remaining:
            with tally.operation():
                await self.operate(engine, key)


@dataclass(frozen=True, slots=True)
class OneThread:
    """One operation after the other, without an event loop: for reference.

    Nobody waits for anybody here, so its latencies are those of the operation alone.
    """

    name: str
    engine: Callable[[Path], Engine]
    operate: Callable[[Engine, int], None]

    def run(self, database: Path, work: Work) -> Measurement:
        engine = self.engine(database)
        try:
            return self._measure(engine, work)
        finally:
            engine.dispose()

    def _measure(self, engine: Engine, work: Work) -> Measurement:
        with engine.connect() as connection:
            settings = settings_of(connection)
        warm_up = self._do(engine, work.warm_up)
        gc.collect()
        started = perf_counter()
        measured = self._do(engine, work.keys)
        return Measurement(settings, perf_counter() - started, warm_up, measured, None)

    def _do(self, engine: Engine, keys: Iterable[int]) -> Tally:
        tally = Tally()
        for key in keys:
            with tally.operation():
                self.operate(engine, key)
        return tally

"""Requests that come when they come, as a server's do: an open loop.

In a closed loop a task asks again when it has been answered, so a slow contender is asked less.
Here another process says when each request arrives, at the same moments for all contenders, and
what it waits until it is looked at is a part of its time.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from array import array
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from . import ticking
from .contenders import Concurrent, Measurement, Measurements, Part, Work, doing, prepare
from .measuring import Meter, Tally, loop_lag
from .ways.base import Open, Way

_LEAD_S = 0.05
"""From when the other process is told the moments to the first of them."""

_NAP_S = 0.005
"""Of the probe of the loop: a loop that is mostly idle would be busy with a shorter one."""

_CHUNK_BYTES = 4_096


class Arrival(NamedTuple):
    """``after_s`` seconds after the start somebody asks for ``part``."""

    after_s: float
    part: Part


def schedule(work: Work) -> list[Arrival]:
    """All requests of a run in their order, the same for all contenders of a round."""
    arrivals = [
        Arrival(after_s, part)
        for part in work.parts
        if part.pace is not None
        for after_s in part.pace.moments(
            work.seconds, random.Random(f"{work.seed} {part.name} arrivals")
        )
    ]
    return sorted(arrivals, key=lambda one: one.after_s)


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Each request has a task of its own, which begins when the loop sees that it has arrived."""

    name: str
    open: Open
    without_wal: bool = False

    @classmethod
    def of(cls, contender: Concurrent) -> OpenLoop:
        """The same way of getting at the database."""
        return cls(contender.name, contender.open, contender.without_wal)

    def run(self, database: Path, work: Work) -> Measurements:
        return work.run(self._run(database, work))

    async def _run(self, database: Path, work: Work) -> Measurements:
        async with _outside() as outside, self.open(database, work.pragmas) as way:
            settings = await way.settings(writes=work.writes)
            requests = {part.name: _Requests(way, part, work) for part in work.parts}
            for one in requests.values():
                await one.prepare()
            gc.collect()
            meter = Meter()
            async with loop_lag(_NAP_S) as overshoots_s:
                arrivals = schedule(work)
                started = await _tell(outside, [one.after_s for one in arrivals])
                meter.start()
                await _serve(outside, started, arrivals, requests)
            usage = meter.usage(one.measured for one in requests.values())
        return {
            name: Measurement(
                *(settings, work.seconds, one.warm_up, one.measured, overshoots_s),
                in_time=sum(at < started + work.seconds for at in one.measured.acknowledged_at),
                usage=usage,
            )
            for name, one in requests.items()
        }


class _Requests:
    """Those for one part, and what has become of them."""

    def __init__(self, way: Way, part: Part, work: Work) -> None:
        self.warm_up, self.measured = Tally(), Tally()
        self._way = way
        self._part = part
        self._count = work.warm_up(part)
        self._keys = work.keys(part)
        self._operate = doing(way, part)

    async def prepare(self) -> None:
        await prepare(self._way, self._part, self._count, self._keys, self.warm_up)

    async def serve(self, due: float) -> None:
        """One of them, whose time counts from when it was ``due``."""
        with self.measured.operation(due):
            await self._operate(self._part.operation, next(self._keys))


@asynccontextmanager
async def _outside() -> AsyncIterator[Process]:
    """The process that says when requests arrive; it runs, and waits for their moments."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", ticking.__file__, stdin=PIPE, stdout=PIPE
    )
    try:
        await _reader(process).readexactly(len(ticking.BYTE))
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        await process.communicate()


async def _tell(outside: Process, after_s: Sequence[float]) -> float:
    """Returns when the first moment is."""
    assert outside.stdin is not None
    started = perf_counter() + _LEAD_S
    outside.stdin.write(array("d", [started + one for one in after_s]).tobytes())
    outside.stdin.write_eof()
    await asyncio.sleep(started - perf_counter())
    return started


async def _serve(
    outside: Process, started: float, arrivals: Sequence[Arrival], requests: dict[str, _Requests]
) -> None:
    """Begin each request when it has arrived, and wait for all."""
    reader, expected, tasks = _reader(outside), iter(arrivals), []
    while arrived := await reader.read(_CHUNK_BYTES):
        for _byte, (after_s, part) in zip(arrived, expected, strict=False):
            tasks.append(asyncio.create_task(requests[part.name].serve(started + after_s)))
    await asyncio.gather(*tasks)


def _reader(outside: Process) -> asyncio.StreamReader:
    assert outside.stdout is not None
    return outside.stdout

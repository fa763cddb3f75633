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
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, cast

from ..measuring import ticking
from ..measuring.clocks import Meter, Tally, loop_lag
from .base import Open, Way
from .contenders import Concurrent, Measurement, Measurements, Part, Work, doing, prepare

_LEAD_S = 0.05
"""From when the other process is told the moments to the first of them."""

_NAP_S = 0.005
"""Of the probe of the loop: a loop that is mostly idle would be busy with a shorter one."""


class Arrival(NamedTuple):
    """A request for ``part``, ``after_s`` seconds after the start."""

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
        async with _Outside.running() as outside, self.open(database, work.pragmas) as way:
            settings = await way.settings(writes=work.writes)
            requests = {part.name: _Requests(way, part, work) for part in work.parts}
            for one in requests.values():
                await one.prepare()
            gc.collect()
            meter = Meter()
            async with loop_lag(_NAP_S) as overshoots_s:
                started = await _serve(outside, schedule(work), requests, meter)
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
    """The requests for one part, and what has become of them."""

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
        """Do one of them; its time counts from when it was ``due``."""
        with self.measured.operation(due):
            await self._operate(self._part.operation, next(self._keys))


async def _serve(
    outside: _Outside, arrivals: Sequence[Arrival], requests: dict[str, _Requests], meter: Meter
) -> float:
    """Begin each request when it has arrived, and wait for all; returns when the time began."""
    expected, tasks = iter(arrivals), list[asyncio.Task[None]]()

    def on_arrival() -> None:
        after_s, part = next(expected)
        tasks.append(asyncio.create_task(requests[part.name].serve(started + after_s)))

    outside.on_arrival = on_arrival
    started = outside.tell([one.after_s for one in arrivals])
    await asyncio.sleep(started - perf_counter())
    meter.start()
    await outside.ended()
    await asyncio.gather(*tasks)
    assert len(tasks) == len(arrivals), "the other process has not told them all"
    return started


class _Outside(asyncio.SubprocessProtocol):
    """The process that says when requests arrive; it runs, and waits for their moments.

    ``on_arrival`` is called once for each of them, as a server's protocol is when there are bytes.
    """

    def __init__(self) -> None:
        self.on_arrival: Callable[[], None] | None = None
        loop = asyncio.get_running_loop()
        self._runs, self._ended = loop.create_future(), loop.create_future()
        self._transport: asyncio.SubprocessTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's have no base class in common with asyncio's.
        self._transport = cast("asyncio.SubprocessTransport", transport)

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[_Outside]:
        """For as long as the block runs."""
        loop = asyncio.get_running_loop()
        command = (sys.executable, "-I", ticking.__file__)
        transport, outside = await loop.subprocess_exec(cls, *command, stderr=None)
        try:
            await outside._runs
            yield outside
        finally:
            transport.close()  # kills it where it has not ended
            await outside._ended

    def tell(self, after_s: Sequence[float]) -> float:
        """Begin; returns when the first moment is."""
        moments = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        started = perf_counter() + _LEAD_S
        moments.write(array("d", [started + one for one in after_s]).tobytes())
        moments.write_eof()
        return started

    async def ended(self) -> None:
        """All moments have come."""
        await asyncio.shield(self._ended)

    def pipe_data_received(self, _fd: int, data: bytes) -> None:
        if self.on_arrival is None:
            self._runs.set_result(None)
            return
        for _byte in data:
            self.on_arrival()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._runs.done():
            self._runs.set_exception(RuntimeError("the process that tells the time did not start"))
        self._ended.set_result(None)

"""Requests that arrive independently of responses, like those of a server: an open loop.

In a closed loop, a task sends its next request after a response, so a slow contender receives fewer
requests. Here, another process signals the arrival of each request, at the same times for all
contenders, and the wait until a request is noticed is part of its time.
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
"""The time between sending the times to the other process and the first of them."""

_NAP_S = 0.005
"""The interval of the loop's probe: a shorter one would keep a mostly idle loop busy."""


class Arrival(NamedTuple):
    """A request for ``part``, ``after_s`` seconds after the start."""

    after_s: float
    part: Part


def schedule(work: Work) -> list[Arrival]:
    """Return all requests of a run in their order, the same for all contenders of a round."""
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
    """Each request has its own task, which starts when the loop notices that it has arrived."""

    name: str
    open: Open
    without_wal: bool = False

    @classmethod
    def of(cls, contender: Concurrent) -> OpenLoop:
        """Return the same way of accessing the database, in an open loop."""
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
    """The requests for one part, and their outcomes."""

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
        """Serve one request; its time is measured from when it was ``due``."""
        with self.measured.operation(due):
            await self._operate(self._part.operation, next(self._keys))


async def _serve(
    outside: _Outside, arrivals: Sequence[Arrival], requests: dict[str, _Requests], meter: Meter
) -> float:
    """Start each request when it arrives, wait for all, and return the time of the start."""
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
    """The process that signals the arrival of requests; it is running, and waits for their times.

    ``on_arrival`` is called once for each of them, like a server's protocol when bytes arrive.
    """

    def __init__(self) -> None:
        self.on_arrival: Callable[[], None] | None = None
        loop = asyncio.get_running_loop()
        self._runs, self._ended = loop.create_future(), loop.create_future()
        self._transport: asyncio.SubprocessTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports share no base class with asyncio's.
        self._transport = cast("asyncio.SubprocessTransport", transport)

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[_Outside]:
        """Run the process during the block."""
        loop = asyncio.get_running_loop()
        command = (sys.executable, "-I", ticking.__file__)
        transport, outside = await loop.subprocess_exec(cls, *command, stderr=None)
        try:
            await outside._runs
            yield outside
        finally:
            transport.close()  # kills the process if it has not ended
            await outside._ended

    def tell(self, after_s: Sequence[float]) -> float:
        """Send the times, and return the time from which they count."""
        moments = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        started = perf_counter() + _LEAD_S
        moments.write(array("d", [started + one for one in after_s]).tobytes())
        moments.write_eof()
        return started

    async def ended(self) -> None:
        """Wait until all times have passed."""
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

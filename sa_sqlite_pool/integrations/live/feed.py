"""The feed of a live page: one sampler for all viewers, which runs only while there are any."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import AsyncGenerator, Mapping
from functools import cached_property
from typing import Any, Final
from weakref import WeakKeyDictionary

from ...compat.background import start_task
from ...system.clock import loop_time, sleep, time
from .history import COLUMNS, History, TakesStatistics

INTERVAL_SECONDS: Final = 1.0
# A stream ends after this time, and the page requests the next. So access is checked again, and a
# server that shuts down does not wait longer than this.
STREAM_SECONDS: Final = 10.0
# The history is kept for this time after its last viewer, for a page that reloads or reconnects.
IDLE_SECONDS: Final = 5.0
# How often to check whether the server is stopping.
_STEP_SECONDS: Final = 0.2
_MOST_DIGITS: Final = 12
# For clients that reconnect automatically; the page reconnects in its own way.
_OPENING: Final = b"retry: 1000\n\n"
_END: Final = b"event: end\ndata: {}\n\n"


class Feed:
    """The samplers of a page: one for each event loop that serves it."""

    def __init__(self, sources: Mapping[str, TakesStatistics]) -> None:
        self._sources = dict(sources)
        self._samplers: WeakKeyDictionary[asyncio.AbstractEventLoop, Sampler] = WeakKeyDictionary()

    def sampler(self) -> Sampler:
        """Return the sampler of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._samplers.get(loop)
        if found is None:
            found = self._samplers[loop] = Sampler(self._sources)
        return found


class Sampler:
    """Takes a sample of each database once a second, and sends it to all viewers.

    A sample is encoded only once for all viewers that have seen the previous one.
    """

    def __init__(self, sources: Mapping[str, TakesStatistics]) -> None:
        self._histories = [History(name, source) for name, source in sources.items()]
        self.viewers = 0
        self._task: asyncio.Future[None] | None = None
        # Both are replaced at every sample; the histories always describe the latest sample.
        self._sample = Sample([], 0, "")
        self._next = asyncio.Event()

    @property
    def running(self) -> bool:
        """Whether samples are being taken."""
        return self._task is not None and not self._task.done()

    async def events(self, last: str | None) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events until ``STREAM_SECONDS`` are over, or the server stops."""
        until = loop_time(asyncio.get_running_loop()) + STREAM_SECONDS
        self._join()
        try:
            seen = self._sample.number_of(last)
            yield _OPENING
            while self.running:
                sample, following = self._sample, self._next
                if seen != sample.number:
                    # All viewers that do not have to catch up have seen sample.number - 1.
                    yield sample.step if seen == sample.number - 1 else sample.whole
                    seen = sample.number
                elif loop_time(asyncio.get_running_loop()) >= until:
                    break
                else:
                    await following.wait()
            yield _END
        finally:
            self.viewers -= 1

    def _join(self) -> None:
        self.viewers += 1
        if not self.running and not server_is_stopping():
            for history in self._histories:
                history.clear()
            self._take(Sample(self._histories, 0, uuid.uuid4().hex))
            self._task = start_task(self._run(), "live page")

    async def _run(self) -> None:
        idle = 0.0
        try:
            while idle < IDLE_SECONDS and await _passed(INTERVAL_SECONDS):
                idle = 0.0 if self.viewers else idle + INTERVAL_SECONDS
                self._take(Sample(self._histories, self._sample.number + 1, self._sample.series))
        finally:  # also if the loop ends and cancels this task
            self._task = None
            # Use a new event: the old one refers to the loop, whose sampler this object is.
            reached, self._next = self._next, asyncio.Event()
            reached.set()

    def _take(self, sample: Sample) -> None:
        at = time.time()
        for history in self._histories:
            history.sample(at)
        self._sample = sample
        reached, self._next = self._next, asyncio.Event()
        reached.set()


class Sample:
    """One sample of all databases, with its number in a consecutive series."""

    def __init__(self, histories: list[History], number: int, series: str) -> None:
        self._histories, self.number, self.series = histories, number, series

    def number_of(self, last: str | None) -> int | None:
        """Return the number of the sample with the id ``last``; None if it is of another series."""
        series, _, number = (last or "").partition("-")
        known = series == self.series and number.isdecimal() and len(number) < _MOST_DIGITS
        return int(number) if known else None

    @cached_property
    def step(self) -> bytes:
        """The event for viewers that have seen the previous sample: the latest points."""
        return self._event(whole=False)

    @cached_property
    def whole(self) -> bytes:
        """The event for all other viewers: all points."""
        return self._event(whole=True)

    def _event(self, *, whole: bool) -> bytes:
        data: dict[str, Any] = {
            "process": os.getpid(),
            "series": self.series,
            "whole": whole,
            "columns": COLUMNS,
            "databases": [history.as_dict(whole=whole) for history in self._histories],
        }
        text = json.dumps(data, separators=(",", ":"))  # a single line of ASCII
        return f"id: {self.series}-{self.number}\ndata: {text}\n\n".encode()


async def _passed(seconds: float) -> bool:
    """Sleep for ``seconds`` and return True; return False as soon as the server is stopping."""
    until = time.monotonic() + seconds
    while not server_is_stopping():
        left = until - time.monotonic()
        if left <= 0:
            return True
        await sleep(min(left, _STEP_SECONDS))
    return False


def server_is_stopping() -> bool:
    """Return True if uvicorn runs in this process and has been asked to exit.

    ASGI notifies an application of shutdown only after its last response: uvicorn waits for all
    responses before it sends ``lifespan.shutdown``, so an endless response has to check for itself.
    uvicorn's SIGTERM handler is a method of its ``Server``, whose ``should_exit`` ends the server,
    with or without a signal. In other servers, a stream ends at its own time limit.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True

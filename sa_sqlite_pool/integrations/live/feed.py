"""The feed: one sampler for all viewers, which runs only while there are any."""

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
# A stream ends after this time, and the page asks for the next: so access is asked for again, and
# no server waits longer for it when it stops.
STREAM_SECONDS: Final = 10.0
# The history outlives its last viewer by this time: a page that is loaded anew, or asks again.
IDLE_SECONDS: Final = 5.0
# How often a stop of the server is looked for.
_STEP_SECONDS: Final = 0.2
_MOST_DIGITS: Final = 12
# Of clients that ask again by themselves; the page has its own way.
_OPENING: Final = b"retry: 1000\n\n"
_END: Final = b"event: end\ndata: {}\n\n"


class Feed:
    """The samplers of a page, one for each event loop that serves it."""

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
    """Takes a sample of each database once a second, and hands it to all viewers.

    A sample is encoded once for all viewers that have seen the one before.
    """

    def __init__(self, sources: Mapping[str, TakesStatistics]) -> None:
        self._histories = [History(name, source) for name, source in sources.items()]
        self.viewers = 0
        self._task: asyncio.Future[None] | None = None
        # Both are replaced at every sample; the histories are those of the latest one.
        self._sample = Sample([], 0, "")
        self._next = asyncio.Event()

    @property
    def running(self) -> bool:
        """True while samples are taken."""
        return self._task is not None and not self._task.done()

    async def events(self, last: str | None) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events until the time of a stream is over, or the server stops."""
        until = loop_time(asyncio.get_running_loop()) + STREAM_SECONDS
        self._join()
        try:
            seen = self._sample.number_of(last)
            yield _OPENING
            while self.running:
                sample, following = self._sample, self._next
                if seen != sample.number:
                    # sample.number - 1 has been seen by all that did not have to catch up.
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
        finally:  # also if the loop ends and cancels this
            self._task = None
            # A new one, since the old one refers to the loop, and the loop's sampler is this.
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
    """One sample of all databases, with its number in a series without gaps."""

    def __init__(self, histories: list[History], number: int, series: str) -> None:
        self._histories, self.number, self.series = histories, number, series

    def number_of(self, last: str | None) -> int | None:
        """Return the number of the sample with the id ``last``; None if it is of another series."""
        series, _, number = (last or "").partition("-")
        known = series == self.series and number.isdecimal() and len(number) < _MOST_DIGITS
        return int(number) if known else None

    @cached_property
    def step(self) -> bytes:
        """The event for viewers that have seen the sample before: the latest points."""
        return self._event(whole=False)

    @cached_property
    def whole(self) -> bytes:
        """The event for viewers that have not: all points."""
        return self._event(whole=True)

    def _event(self, *, whole: bool) -> bytes:
        data: dict[str, Any] = {
            "process": os.getpid(),
            "series": self.series,
            "whole": whole,
            "columns": COLUMNS,
            "databases": [history.as_dict(whole=whole) for history in self._histories],
        }
        text = json.dumps(data, separators=(",", ":"))  # in one line, and ASCII
        return f"id: {self.series}-{self.number}\ndata: {text}\n\n".encode()


async def _passed(seconds: float) -> bool:
    """Sleep; return False as soon as the server is about to stop."""
    until = time.monotonic() + seconds
    while not server_is_stopping():
        left = until - time.monotonic()
        if left <= 0:
            return True
        await sleep(min(left, _STEP_SECONDS))
    return False


def server_is_stopping() -> bool:
    """Return True if uvicorn runs in this process and has been asked to exit.

    ASGI tells an application of the end only after its last response: uvicorn waits for all of them
    before it sends ``lifespan.shutdown``, so an endless one must look by itself. Its handler of
    SIGTERM is a method of its ``Server``, and ``should_exit`` of that is what ends it, also without
    a signal. In another server a stream ends by its own limit.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True

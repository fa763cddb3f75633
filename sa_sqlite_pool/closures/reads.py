"""All calls of ``run_read()`` on one database: a line for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import final
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncEngine

from ..execution.long_functions import LongFunctions
from ..pools.base import FairPool
from ..system.exits import close_at_exit
from ..system.forks import prepare_before_fork, renew_after_fork
from ..system.loop_state import call_unless_closed
from .borrowed_reader import TOGETHER_SECONDS
from .read_line import ReadLine


@final
class Reads:
    """The lines of one database, one for each event loop. ``threads`` is as in ReadLine."""

    def __init__(self, engine: AsyncEngine, label: str, threads: set[int]) -> None:
        self._engine = engine.sync_engine
        self._label = label
        self._threads = threads
        self._long = LongFunctions(TOGETHER_SECONDS)
        self.renew_in_child()
        renew_after_fork(self)
        prepare_before_fork(self)
        close_at_exit(self, reads=True)

    def renew_in_child(self) -> None:
        """Forget the parent's lines."""
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, ReadLine] = WeakKeyDictionary()
        self._last: ReadLine | None = None  # of the loop that asked last

    def prepare_for_fork(self) -> None:
        for _, line in self._each():
            line.close_readers_at_rest()
        pool = self._engine.pool
        assert isinstance(pool, FairPool)
        pool.prepare_for_fork()

    def close_at_exit(self) -> None:
        self.prepare_for_fork()

    def line(self) -> ReadLine:
        """Return the running loop's line."""
        loop, last = asyncio.get_running_loop(), self._last
        if last is not None and last.loop() is loop:
            return last
        found = self._last = self._lines.get(loop)
        if found is None:
            for other, _ in self._each():
                if other.is_closed():  # calls that waited there would keep it alive for ever
                    self._lines.pop(other, None)
            found = self._last = self._lines[loop] = ReadLine(
                self._engine, self._label, self._long, self._threads
            )
        return found

    def send_away(self, error: Callable[[], Exception]) -> None:
        """Raise ``error()`` in all waiting calls."""
        for loop, line in self._each():
            call_unless_closed(loop, line.send_away, error)

    def _each(self) -> Iterator[tuple[asyncio.AbstractEventLoop, ReadLine]]:
        """Iterate over the lines that exist now: another thread may add its own meanwhile."""
        for reference in self._lines.keyrefs():
            loop = reference()
            line = None if loop is None else self._lines.get(loop)
            if loop is not None and line is not None:
                yield loop, line

"""Substitutes for a clock in tests of waiting tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sa_sqlite_pool.closures import write_group
from sa_sqlite_pool.transactions import locks


def put_forward(seconds: float) -> None:
    """Advance the clock of the running loop, so timers up to then are due."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


class Pauses:
    """Counts how often tasks have found a lock of SQLite taken, and paused before the next try."""

    def __init__(self, first: Callable[[], object] | None) -> None:
        self.count = 0
        self._first = first
        self._pause = locks.pause

    async def pause(self) -> None:
        """Count, and pause as usual."""
        self.count += 1
        if self.count == 1 and self._first is not None:
            self._first()
        await self._pause()


@contextmanager
def pauses(first: Callable[[], object] | None = None) -> Iterator[Pauses]:
    """Count the pauses of all connections during the block; call ``first()`` in the first one."""
    counted = Pauses(first)
    with pytest.MonkeyPatch.context() as patch:
        for module in (locks, write_group):
            patch.setattr(module, "pause", counted.pause)
        yield counted
    assert counted.count, "no lock was in the way"

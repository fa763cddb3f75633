"""Giving way: a task that never waits lets the others of its event loop go on, now and then.

What runs inline suspends nobody, so a task that does nothing else would keep the loop for itself.
Here it is known how long the running task has gone on since the loop came to it:

    Loop, one lap after the other | Task that reads             | Others
    lap: each task that is ready  | first statement             |
                                  | statement, statement, …     |
                                  | its time is over: gives way |
                                  |                             | go on, as long each
    next lap                      | first statement again       |
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Generator
from typing import Any, final

from sqlalchemy.util import await_only

from ..forks import renew_after_fork

# Seconds for which a task goes on before all others that are ready have a turn on the loop: where
# it holds nothing that they may need, and where it holds a connection.
_SECONDS = 0.000_1
_SECONDS_HOLDING = 0.000_5


@final
class Pause:
    """Something to await: for a lap of the loop, or for no time at all."""

    __slots__ = ("long",)

    def __init__(self, long: bool) -> None:
        self.long = long

    def __await__(self) -> Generator[None, None, None]:
        if self.long:
            yield


_LONG, _SHORT = Pause(True), Pause(False)


@final
class Laps:
    """Of one event loop. Get it from :func:`laps`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._task: asyncio.Task[Any] | None = None
        self._since = 0.0

    def belongs_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._loop() is loop

    def pause(self, *, holding: bool) -> Pause:
        """To be awaited by the running task, before it begins with something.

        ``holding``: it has a connection, perhaps the right to write.
        """
        # SQLAlchemy insists that a method which executes awaits something, so it is never nothing.
        task, now = asyncio.current_task(), time.perf_counter()
        if task is self._task:
            patience = _SECONDS_HOLDING if holding else _SECONDS
            return _SHORT if now - self._since < patience else _LONG
        if self._task is None and (loop := self._loop()) is not None:
            loop.call_soon(self._next_lap)
        self._task, self._since = task, now
        return _SHORT

    def _next_lap(self) -> None:
        self._task = None


@final
class _Registry:
    """Of all loops."""

    def __init__(self) -> None:
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """No loop of the parent runs here, and what it was about to call is never called."""
        self._laps: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Laps] = (
            weakref.WeakKeyDictionary()
        )

    def laps(self, loop: asyncio.AbstractEventLoop) -> Laps:
        found = self._laps.get(loop)
        if found is None:
            found = self._laps[loop] = Laps(loop)
        return found


_registry = _Registry()


def give_way() -> None:
    """Have the running task, in one of SQLAlchemy's greenlets, let others go on, if it is time."""
    pause = laps(asyncio.get_running_loop()).pause(holding=False)
    if pause.long:
        await_only(pause)


def laps(loop: asyncio.AbstractEventLoop) -> Laps:
    """Those of ``loop``, the running one: the same object each time."""
    return _registry.laps(loop)

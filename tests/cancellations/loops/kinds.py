"""The event loops of asyncio and of other packages, and one that runs callbacks in any order."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from random import Random

MakeLoop = Callable[[], asyncio.AbstractEventLoop]


class ShuffledLoop(asyncio.SelectorEventLoop):
    """A loop that runs ready callbacks in random order, which is stricter than any real loop."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self._rng = rng

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        handles = [ready.popleft() for _ in range(len(ready))]  # other threads may append
        self._rng.shuffle(handles)
        ready.extendleft(handles)
        super()._run_once()  # type: ignore[misc]


def other_loops(count: int, seed: int) -> dict[str, MakeLoop]:
    """Return ``count`` loops by name, of all kinds available in this Python and its packages."""
    kinds: list[MakeLoop] = [asyncio.new_event_loop, partial(ShuffledLoop, Random(seed))]
    if sys.version_info >= (3, 12):
        kinds.append(_eager)
    if importlib.util.find_spec("uvloop"):
        kinds.append(_uvloop)
    return {f"loop {number}": kinds[number % len(kinds)] for number in range(1, count + 1)}


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _uvloop() -> asyncio.AbstractEventLoop:
    uvloop = importlib.import_module("uvloop")
    return uvloop.new_event_loop()  # type: ignore[no-any-return]

"""The state that the package keeps for each event loop, in one object.

A class whose objects each belong to one loop, such as the mailbox or the loop's budget, is a *part*
of the loop's state. It keeps no registry of its own and takes no loop as an argument:

    budget = of_running_loop(LoopBudget)  # the same object each time in this loop
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, final

from .forks import renew_after_fork

P = TypeVar("P")


@final
class _Parts(dict[type[Any], Any]):
    """One object of each class, created when it is first looked up."""

    def __missing__(self, part: type[P]) -> P:
        made = self[part] = part()
        return made


@final
class LoopState:
    """The parts of one event loop, by class. Each is created at its first use, in the loop.

    It is freed with its loop. No part refers to the loop, except through waiting tasks.
    """

    __slots__ = ("loop", "parts")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self.parts = _Parts()


@final
class _Registry:
    """The states of all event loops of the process.

    Only a running loop looks up its state, so no two threads look up the same one.
    """

    def __init__(self) -> None:
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Discard the parent's states: a loop that continues in the child starts with a new one.

        Of the parent's threads only the running one is left, with its cache.
        """
        self._states: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopState] = (
            weakref.WeakKeyDictionary()
        )
        _here.state = None

    def state(self, loop: asyncio.AbstractEventLoop) -> LoopState:
        found = self._states.get(loop)
        if found is None:
            self._forget_closed()
            found = self._states[loop] = LoopState(loop)
        return found

    def others_are_open(self, loop: asyncio.AbstractEventLoop) -> bool:
        if len(self._states) <= 1:
            return False
        others = (reference() for reference in self._states.keyrefs())
        return any(one is not None and one is not loop and not one.is_closed() for one in others)

    def _forget_closed(self) -> None:
        """Drop the states of closed loops: tasks that wait in a part keep the loop alive."""
        for reference in self._states.keyrefs():
            if (loop := reference()) is not None and loop.is_closed():
                self._states.pop(loop, None)


@final
class _Here(threading.local):
    """The state of the loop that ran last in each thread."""

    state: LoopState | None = None


_here = _Here()
_registry = _Registry()


def of_running_loop(part: type[P]) -> P:
    """Return the running loop's object of the class ``part``, the same each time."""
    loop = asyncio.get_running_loop()
    state = _here.state
    if state is None or state.loop() is not loop:
        state = _here.state = _registry.state(loop)
    found: P = state.parts[part]
    return found


def others_are_open(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether other event loops that have used the package are still open."""
    return _registry.others_are_open(loop)


def call_unless_closed(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object
) -> bool:
    """Schedule ``callback`` in ``loop``, from any thread; return False if the loop is closed.

    The tasks of a closed loop will never run again, so they do not need the call.
    """
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        return False
    return True

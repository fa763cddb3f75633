"""Run in a separate process: collect an object that refers to a runner that no task awaits.

Its arguments are a long chain, whose end the trashcan sets aside. That end contains the last object
of the collector's list, whose head is on the stack, at a depth that depends on the Python build.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from typing import Any

from sa_sqlite_pool.compat.runners import MOST_IDLE, Runner

Way = Callable[[Callable[[], None]], object]


class Hashed:
    """An object that calls a function when it is hashed."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def __hash__(self) -> int:
        self.function()
        return 1


def call(function: Callable[[], None]) -> None:
    function()


def pass_on(*args: Any, **kw: Any) -> None:
    args[0](*args[1:], **kw)


# Calls that use different amounts of stack.
WAYS: list[Way] = [
    lambda function: list(map(call, (function,))),
    lambda function: {Hashed(function)},
    lambda function: pass_on(*(pass_on, function)),
]

ends: list[list[Any]] = []


def fail(_chain: object, error: Exception) -> None:
    raise error


def use(args: tuple[Any, ...]) -> None:
    runner = Runner()
    runner.switch(fail, args, {})
    runner.finish()


def leave_garbage() -> None:
    """Leave an error behind whose frames refer to it and to the runner."""
    error = KeyError()
    first: list[Any] = []
    last = first
    for _ in range(100):
        last.append([])
        last = last[0]
    args = [(first, error)]
    del first
    try:
        use(args.pop())
    except KeyError:
        ends.append(last)
    del last


def collect(ways: tuple[Way, ...]) -> None:
    if ways:
        ways[0](lambda: collect(ways[1:]))
    else:
        gc.collect()


if __name__ == "__main__":
    gc.disable()
    Runner.idle.runners.extend(Runner() for _ in range(MOST_IDLE))
    for count in range(5):
        for ways in itertools.product(WAYS, repeat=count):
            leave_garbage()
            ends.pop().append([])
            collect(ways)

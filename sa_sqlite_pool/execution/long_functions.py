"""Functions that are known to run for a long time."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any, final

# The longest run is forgotten after this many shorter ones.
_SHORTER_RUNS = 16

_MOST = 512


@final
class LongFunctions:
    """The functions that ran for ``least`` seconds or more, by code. Any thread may use this.

    A single long run proves nothing: the processor may have been busy with other work. ``known`` is
    False if there has been no long run.
    """

    def __init__(self, least: float) -> None:
        self.known = False
        self._least = least
        # The longest run in seconds, and how many shorter ones may follow: 0 after a single one.
        self._runs: OrderedDict[object, tuple[float, int]] = OrderedDict()

    def expected(self, function: object) -> float:
        """Return how many seconds the next run may take; 0.0 if it is not known to be long."""
        seconds, left = self._runs.get(_code(function), _NONE)
        return seconds if left else 0.0

    def note(self, function: object, seconds: float) -> None:
        """Note that ``function`` has run for ``seconds``."""
        code, is_long = _code(function), seconds >= self._least
        longest, left = self._runs.pop(code, _NONE)
        if is_long and longest == 0.0:
            self._runs[code] = seconds, 0
            if len(self._runs) > _MOST:
                self._runs.popitem(last=False)
        elif is_long and (seconds >= longest or left <= 1):
            self._runs[code] = seconds, _SHORTER_RUNS
        elif left > 1:
            self._runs[code] = longest, left - 1
        self.known = bool(self._runs)


_NONE = 0.0, 0


def _code(function: Any) -> object:
    """Return the object that all closures, bound methods and partials of a function share."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__code__", None) or getattr(function, "__qualname__", type(function))

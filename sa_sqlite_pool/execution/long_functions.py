"""Functions that are known to run long."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any, final

# After so many runs that are shorter, a long one is forgotten.
_SHORTER_RUNS = 16

_MOST = 512


@final
class LongFunctions:
    """The functions that ran for ``least`` seconds or more, by their code. In any thread.

    ``known`` is False if there is none.
    """

    def __init__(self, least: float) -> None:
        self.known = False
        self._least = least
        # The longest run in seconds, and how many shorter ones may follow.
        self._runs: OrderedDict[object, tuple[float, int]] = OrderedDict()

    def expected(self, function: object) -> float:
        """Return how many seconds the next run may take; 0.0 if no run was long."""
        return self._runs.get(_code(function), _SHORT)[0]

    def note(self, function: object, seconds: float) -> None:
        """Note that ``function`` has run for ``seconds``, and perhaps still does."""
        code = _code(function)
        longest, left = self._runs.pop(code, _SHORT)
        if seconds >= max(longest, self._least):
            self._runs[code] = seconds, _SHORTER_RUNS
            if len(self._runs) > _MOST:
                self._runs.popitem(last=False)
        elif left > 1:
            self._runs[code] = longest, left - 1
        self.known = bool(self._runs)


_SHORT = 0.0, 0


def _code(function: Any) -> object:
    """Return what all closures, bound methods and partial objects of a function have in common."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__code__", None) or getattr(function, "__qualname__", type(function))

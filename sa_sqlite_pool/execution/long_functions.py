"""Functions that are known to run long."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any, final

# After so many short runs in a row, a function counts as short again.
_SHORT_RUNS = 16

_MOST = 512


@final
class LongFunctions:
    """Functions that ran for ``seconds`` or more, by their code. In any thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._short_runs_left: OrderedDict[object, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._short_runs_left)

    def __contains__(self, function: object) -> bool:
        return bool(self._short_runs_left) and _code(function) in self._short_runs_left

    def note(self, function: object, seconds: float) -> None:
        """Note that ``function`` has run for ``seconds``, and perhaps still does."""
        if seconds < self._seconds and not self._short_runs_left:
            return
        code = _code(function)
        if seconds >= self._seconds:
            self._short_runs_left[code] = _SHORT_RUNS
            if len(self._short_runs_left) > _MOST:
                self._short_runs_left.popitem(last=False)
        elif (left := self._short_runs_left.pop(code, 0) - 1) > 0:
            self._short_runs_left[code] = left


def _code(function: Any) -> object:
    """Return what all closures, bound methods and partial objects of a function have in common."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__code__", None) or getattr(function, "__qualname__", type(function))

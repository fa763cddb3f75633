"""Plain functions that return coroutines, as frameworks see them."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any


def mark_as_coroutine_function(function: Callable[..., Any]) -> None:
    """Make ``iscoroutinefunction(function)`` true, that of :mod:`inspect` or :mod:`asyncio`.

    Starlette runs a background task in a thread otherwise, where the coroutine that the function
    returns would never be awaited.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:  # the mark of asyncio.iscoroutinefunction(), which Starlette asks there
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]

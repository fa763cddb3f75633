"""Plain functions that return coroutines, and how frameworks recognize them."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any


def mark_as_coroutine_function(function: Callable[..., Any]) -> None:
    """Make ``iscoroutinefunction(function)`` of :mod:`inspect` or :mod:`asyncio` return True.

    Otherwise Starlette runs a background task in a thread, where the coroutine that the function
    returns would never be awaited.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:  # the marker for asyncio.iscoroutinefunction(), which Starlette calls on these Pythons
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]

"""Locks that what a signal's handler raises does not leave taken."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any, cast, final


@final
class GivenBack:
    """A lock that ``with`` gives back, whatever happens, on Python 3.14, too.

    The interpreter calls the handlers of signals after a call. From Python 3.14 on ``__enter__()``
    is one, which the block does not cover yet: what a handler raises there, KeyboardInterrupt say,
    leaves a ``threading.Lock`` taken for ever. Python 3.15 does not call them there
    (https://github.com/python/cpython/issues/148874). Here the lock is taken by a step of an
    iterator, which is no call, and the way back from a function in Python lets nothing in either.
    """

    __slots__ = ("__exit__", "_steps", "acquire", "locked", "release")

    def __init__(self, lock: Any) -> None:
        self.acquire, self.release, self.locked = lock.acquire, lock.release, lock.locked
        # Not a method in Python: a handler may be called where such a one begins.
        self.__exit__ = lock.__exit__
        self._steps: Iterator[Any] = iter(lock.acquire, None)  # each step takes the lock

    def __enter__(self) -> Any:
        while True:
            for taken in self._steps:
                return taken  # and no call before it
            # A handler has raised StopIteration while this waited, which ends an iterator.
            self._steps = iter(self.acquire, None)


_loses_locks = sys.version_info[:2] == (3, 14)


def new_lock() -> threading.Lock:
    """Return a ``threading.Lock()``; on Python 3.14 one that ``with`` gives back."""
    lock = threading.Lock()
    return cast(threading.Lock, GivenBack(lock)) if _loses_locks else lock


def new_rlock() -> threading.RLock:
    """Return a ``threading.RLock()``; on Python 3.14 one that ``with`` gives back."""
    lock = threading.RLock()
    return cast(threading.RLock, GivenBack(lock)) if _loses_locks else lock

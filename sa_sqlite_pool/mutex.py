"""Locks that are released even if a signal handler raises an exception."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any, cast, final


@final
class GivenBack:
    """A lock that ``with`` always releases, on Python 3.14, too.

    The interpreter runs signal handlers after calls. On Python 3.14, ``__enter__()`` is such a
    call, and the block does not cover it yet: an exception that a handler raises there, for example
    KeyboardInterrupt, leaves a ``threading.Lock`` locked for ever. Python 3.15 runs no handler
    there (https://github.com/python/cpython/issues/148874). Here, a step of an iterator, which is
    not a call, acquires the lock, and no handler runs when a Python function returns.
    """

    __slots__ = ("__exit__", "_steps", "acquire", "locked", "release")

    def __init__(self, lock: Any) -> None:
        self.acquire, self.release, self.locked = lock.acquire, lock.release, lock.locked
        # Not a Python method: a signal handler may run where one begins.
        self.__exit__ = lock.__exit__
        self._steps: Iterator[Any] = iter(lock.acquire, None)  # each step acquires the lock

    def __enter__(self) -> Any:
        while True:
            for taken in self._steps:
                return taken  # with no call in between
            # A handler raised StopIteration during the wait, which exhausts the iterator.
            self._steps = iter(self.acquire, None)


_loses_locks = sys.version_info[:2] == (3, 14)


def new_lock() -> threading.Lock:
    """Return a ``threading.Lock()``; on Python 3.14, one that ``with`` always releases."""
    lock = threading.Lock()
    return cast(threading.Lock, GivenBack(lock)) if _loses_locks else lock


def new_rlock() -> threading.RLock:
    """Return a ``threading.RLock()``; on Python 3.14, one that ``with`` always releases."""
    lock = threading.RLock()
    return cast(threading.RLock, GivenBack(lock)) if _loses_locks else lock

"""One object for each database file of the process."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar, final

from .forks import renew_after_fork

T = TypeVar("T")


@final
class OnePerFile(Generic[T]):
    """The objects that somebody uses, by the real path of the file."""

    def __init__(self) -> None:
        self._objects: weakref.WeakValueDictionary[str, T] = weakref.WeakValueDictionary()
        self.renew_in_child()
        renew_after_fork(self)

    def renew_in_child(self) -> None:
        # A thread that the child does not have may have held it. The objects renew themselves.
        self._mutex = threading.Lock()

    def get(self, identity: str, make: Callable[[], T]) -> T:
        """The same object each time, as long as somebody keeps it; ``make()`` makes the first."""
        with self._mutex:
            found = self._objects.get(identity)
            if found is None:
                found = self._objects[identity] = make()
            return found

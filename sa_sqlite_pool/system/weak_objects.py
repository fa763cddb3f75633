"""A set that does not keep its objects alive."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class WeakObjects(Generic[T]):
    """A set of weak references. Any thread may add to it while another iterates over it.

    ``weakref.WeakSet`` fails then: "Set changed size during iteration". The interpreter copies a
    plain set in one atomic step, in which the garbage collector does not run either.
    """

    def __init__(self) -> None:
        self._references: set[weakref.ref[T]] = set()

    def add(self, thing: T) -> None:
        self._references.add(weakref.ref(thing, self._references.discard))

    def __iter__(self) -> Iterator[T]:
        """Iterate over the objects that are in the set when the iteration begins."""
        for reference in self._references.copy():
            thing = reference()
            if thing is not None:
                yield thing

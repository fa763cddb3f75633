"""Objects that are known without being kept."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class WeakObjects(Generic[T]):
    """A set of weak references. Any thread may add to it while another passes over it.

    ``weakref.WeakSet`` fails then: "Set changed size during iteration". A plain set is copied in
    one step of the interpreter, in which the garbage collector does not run either.
    """

    def __init__(self) -> None:
        self._references: set[weakref.ref[T]] = set()

    def add(self, thing: T) -> None:
        self._references.add(weakref.ref(thing, self._references.discard))

    def __iter__(self) -> Iterator[T]:
        """Pass over those that are there when the pass begins."""
        for reference in self._references.copy():
            thing = reference()
            if thing is not None:
                yield thing

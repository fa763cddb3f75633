"""Sets of weak references, which threads and the garbage collector change at any time."""

from __future__ import annotations

import gc

from sa_sqlite_pool.system.weak_objects import WeakObjects


class Thing:
    """An object that only the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


def test_a_pass_over_what_is_there_at_its_begin() -> None:
    """Another thread may add objects meanwhile."""
    things: WeakObjects[Thing] = WeakObjects()
    first, second = Thing(), Thing()
    things.add(first)
    seen = []
    for thing in things:
        things.add(second)
        seen.append(thing)
    assert seen == [first]
    assert set(things) == {first, second}


def test_nothing_is_kept() -> None:
    """Objects that are freed during a pass, or at its beginning, are left out."""
    before = gc.get_threshold()
    things: WeakObjects[Thing] = WeakObjects()
    kept = Thing()
    things.add(kept)
    try:
        for number in range(12):
            gc.disable()
            for _ in range(10):
                things.add(Thing())
            gc.set_threshold(gc.get_count()[0] + number)
            gc.enable()
            assert kept in set(things)
            gc.collect()
            assert list(things) == [kept]
    finally:
        gc.set_threshold(*before)
        gc.enable()

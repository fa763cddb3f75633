"""The barrier before a fork and at the exit."""

from __future__ import annotations

import threading

from sa_sqlite_pool.system.forks import Rest


def test_a_pause_keeps_threads_from_beginning() -> None:
    """Until it ends."""
    rest, begun = Rest(), threading.Event()

    def use() -> None:
        with rest():
            begun.set()

    rest.begin_pause()
    thread = threading.Thread(target=use)
    thread.start()
    assert not begun.wait(0.05)
    assert not rest.working
    rest.end_pause()
    thread.join(10)
    assert begun.is_set()


def test_a_pause_that_lasts_a_moment() -> None:
    """At the exit: who still has something to do then goes on, and nobody waits again."""
    rest = Rest()
    rest.begin_pause(longest=0.01)
    with rest():
        assert not rest.forking
    with rest():
        pass
    rest.begin_pause()
    assert rest.forking  # a fork afterwards is as before
    rest.end_pause()

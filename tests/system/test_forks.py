"""The barrier before a fork and at exit."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from sa_sqlite_pool.system.forks import Rest


def test_a_pause_keeps_threads_from_beginning() -> None:
    """Threads wait until the pause ends."""
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
    """At exit: threads that still have work continue after it, and none waits again."""
    rest = Rest()
    rest.begin_pause(longest=0.01)
    with rest():
        assert not rest.forking
    with rest():
        pass
    rest.begin_pause()
    assert rest.forking  # a later fork works as before
    rest.end_pause()


ALL_FAIL = """
import os, sys
from sa_sqlite_pool.system.forks import prepare_before_fork, renew_after_fork

class Thing:
    def __init__(self):
        prepare_before_fork(self)
        renew_after_fork(self)

    def prepare_for_fork(self):
        prepared.append(self)
        raise RuntimeError("cannot be closed")

    def renew_in_child(self):
        renewed.append(self)
        raise RuntimeError("cannot be renewed")

sys.unraisablehook = lambda _: None
prepared, renewed = [], []
things = [Thing() for _ in range(5)]
child = os.fork()
if not child:
    os._exit(10 * len(prepared) + len(renewed))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_fails_keeps_nothing_else_from_being_prepared() -> None:
    """Otherwise the child could not open others' files, or would use its parent's as its own."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_FAIL], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "55\n"

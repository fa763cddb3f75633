"""Warnings that are logged once a minute, by a clock that the tests set."""

from __future__ import annotations

import threading

from sa_sqlite_pool.reporting.repeats import (
    MOST_REMEMBERED,
    PAUSE_SECONDS,
    Repeats,
    others_left_out,
)


class Clock:
    """A clock that stands still until a test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_once_a_minute_for_each_key() -> None:
    """The first one after a minute says how many were left out."""
    clock = Clock()
    repeats = Repeats(clock)
    assert repeats.admit("views.py:31") == 0
    assert [repeats.admit("views.py:31") for _ in range(3)] == [None] * 3
    assert repeats.admit("views.py:32") == 0
    clock.now += PAUSE_SECONDS - 0.001
    assert repeats.admit("views.py:31") is None
    clock.now += 0.001
    assert repeats.admit("views.py:31") == 4
    assert repeats.admit("views.py:31") is None
    clock.now += PAUSE_SECONDS
    assert repeats.admit("views.py:31") == 1
    assert repeats.admit("views.py:32") == 0


def test_the_table_is_bounded() -> None:
    """The oldest entry is forgotten first, and its warning is logged again sooner."""
    clock = Clock()
    repeats = Repeats(clock)
    for number in range(MOST_REMEMBERED):
        assert repeats.admit(number) == 0
    clock.now += PAUSE_SECONDS
    assert repeats.admit(0) == 0
    assert repeats.admit("another") == 0
    assert len(repeats) == MOST_REMEMBERED
    assert repeats.admit(0) is None
    assert repeats.admit(1) == 0
    assert len(repeats) == MOST_REMEMBERED


def test_a_child_process_begins_anew() -> None:
    """A lock that a thread of the parent process held at the fork does not matter."""
    repeats = Repeats(Clock())
    assert repeats.admit("key") == 0
    held = threading.Thread(target=repeats._mutex.acquire)
    held.start()
    held.join()
    repeats.renew_in_child()
    assert repeats.admit("key") == 0


def test_what_a_message_says_of_them() -> None:
    """The text is empty if none was left out."""
    assert others_left_out(0) == ""
    assert others_left_out(3) == "; 3 more since the last such warning were not logged"

"""The time that is left to programs that do not stand in line."""

from __future__ import annotations

import asyncio

import pytest

from sa_sqlite_pool.turn import courtesy
from sa_sqlite_pool.turn.courtesy import Courtesy
from tests.helpers import run_in_virtual_time


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_owed_where_nobody_was_met() -> None:
    """Without other programs, no time is lost."""
    courtesy = Courtesy(Clock())
    courtesy.add_debt(10.0)
    assert courtesy.owed == 0.0


def test_a_share_of_what_was_held() -> None:
    """Once one was met, a share is owed; small amounts are saved until they are worth a timer."""
    other = Courtesy(Clock())
    other.meet()
    assert other.owed == 0.0
    other.add_debt(0.002)
    assert other.owed == 0.0
    other.add_debt(0.018)
    assert other.owed == pytest.approx(0.020 * courtesy._SHARE)


def test_what_they_took_counts() -> None:
    """A program that has held the lock long enough is owed nothing, for a while afterwards, too."""
    other = Courtesy(Clock())
    other.meet()
    other.add_debt(0.1)
    other.pay_off(0.1)
    assert other.owed == 0.0
    other.add_debt(0.1)
    assert other.owed == 0.0


def test_both_sides_are_bounded() -> None:
    """An hour's import does not owe ten minutes, nor does an hour of theirs delay later ones."""
    other = Courtesy(Clock())
    other.meet()
    other.add_debt(3600.0)
    assert other.owed == courtesy._LONGEST_SECONDS
    other.pay_off(3600.0)
    other.add_debt(2 * courtesy._LONGEST_SECONDS / courtesy._SHARE)
    assert other.owed == courtesy._LONGEST_SECONDS


def test_it_ends_with_them() -> None:
    """Two seconds after the last was met, nothing is owed, not even for later holds in between."""
    clock = Clock()
    other = Courtesy(clock)
    other.meet()
    other.add_debt(1.0)
    clock.now += courtesy._REMEMBER_SECONDS
    assert other.owed == 0.0
    other.meet()
    assert other.owed == 0.0


def test_a_pause_pays() -> None:
    """The pause lasts for the time owed, once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        other = Courtesy(loop.time)
        other.meet()
        other.add_debt(0.1)
        before = loop.time()
        await other.pause()
        assert loop.time() - before == pytest.approx(0.1 * courtesy._SHARE)
        await other.pause()
        assert loop.time() - before == pytest.approx(0.1 * courtesy._SHARE)

    run_in_virtual_time(main())

"""When the log needs work, and which."""

from __future__ import annotations

import pytest

from sa_sqlite_pool import WalSettings
from sa_sqlite_pool.files.log_file import LogSize
from sa_sqlite_pool.wal.policy import Action, Situation, decide, too_large

NOTHING, WAIT, TIDY, MOVE, GAP = Action

SETTINGS = WalSettings(soft_limit=1000, hard_limit=4000, reader_gap=0.5)
NO_GAPS = WalSettings(soft_limit=1000, hard_limit=4000, reader_gap=0)
NO_HARD = WalSettings(soft_limit=1000, hard_limit=None)
NO_SOFT = WalSettings(soft_limit=None, hard_limit=4000)
NEITHER = WalSettings(soft_limit=None, hard_limit=None)
CLOSE = WalSettings(soft_limit=1000, hard_limit=1500, reader_gap=0)  # half the hard is below soft
EQUAL = WalSettings(soft_limit=1000, hard_limit=1000)


def log(used: int, size: int | None = None) -> LogSize:
    return LogSize(max(used, 1000) if size is None else size, used, 1)


def decided(
    settings: WalSettings,
    used: int,
    size: int | None = None,
    *,
    idle: bool = False,
    checked_at: int = 0,
    pinned: bool = False,
) -> Action:
    return decide(Situation(log(used, size), idle, checked_at, pinned), settings)


@pytest.mark.parametrize(
    ("settings", "size", "expected"),
    [
        (SETTINGS, 0, NOTHING),
        (SETTINGS, 999, NOTHING),
        (SETTINGS, 1000, TIDY),
        (NO_HARD, 999, NOTHING),
        (NO_HARD, 1000, TIDY),
        (EQUAL, 999, NOTHING),
        (NO_SOFT, 10**9, NOTHING),
        (NEITHER, 10**9, NOTHING),
    ],
)
def test_in_a_quiet_moment(settings: WalSettings, size: int, expected: Action) -> None:
    """From the soft limit on, the log is tidied up, in use or not; readers do not matter."""
    for used in (0, size):
        for pinned in (False, True):
            found = decided(settings, used, size, idle=True, checked_at=used, pinned=pinned)
            assert found is expected


@pytest.mark.parametrize(("pinned", "expected"), [(False, Action.GAP), (True, TIDY)])
def test_in_a_quiet_moment_at_the_hard_limit(pinned: bool, expected: Action) -> None:
    """Readers may overlap for ever, even if no task writes any more."""
    assert decided(EQUAL, 1000, idle=True, pinned=pinned) is expected
    assert decided(EQUAL, 999, 1000, idle=True, pinned=pinned) is TIDY


@pytest.mark.parametrize(
    ("settings", "used", "expected"),
    [
        (SETTINGS, 999, WAIT),
        (SETTINGS, 1999, WAIT),
        (SETTINGS, 2000, MOVE),
        (SETTINGS, 3999, MOVE),
        (SETTINGS, 4000, GAP),
        (SETTINGS, 10**9, GAP),
        (NO_GAPS, 1999, WAIT),
        (NO_GAPS, 4000, MOVE),
        (NO_HARD, 1999, WAIT),
        (NO_HARD, 2000, MOVE),
        (NO_HARD, 10**9, MOVE),
        (CLOSE, 999, WAIT),
        (CLOSE, 1000, MOVE),
        (CLOSE, 1500, MOVE),
        (EQUAL, 999, WAIT),
        (EQUAL, 1000, GAP),
        (NO_SOFT, 10**9, NOTHING),
        (NEITHER, 10**9, NOTHING),
    ],
)
def test_while_others_write(settings: WalSettings, used: int, expected: Action) -> None:
    """It is moved at half the hard limit (or twice the soft one); the hard limit makes room."""
    assert decided(settings, used) is expected


def test_what_is_in_use_counts_and_not_the_size_of_the_file() -> None:
    """A large file whose log has restarted waits for a quiet moment; a small one needs nothing."""
    assert decided(SETTINGS, 999, size=10**9) is WAIT
    assert decided(SETTINGS, 999, size=999) is NOTHING


@pytest.mark.parametrize(
    ("checked_at", "used", "expected"),
    [
        (2000, 2000, WAIT),
        (2000, 2499, WAIT),
        (2000, 2500, MOVE),
        (2001, 2000, MOVE),  # it has restarted, and is large already
        (1501, 2000, WAIT),
        (1500, 2000, MOVE),
        (3600, 3999, WAIT),
        (3600, 4000, GAP),
    ],
)
def test_a_log_that_was_just_moved(checked_at: int, used: int, expected: Action) -> None:
    """It is not moved again before half the soft limit was written, but a gap is still possible."""
    assert decided(SETTINGS, used, checked_at=checked_at) is expected


@pytest.mark.parametrize(
    ("checked_at", "used", "expected"),
    [(0, 1999, WAIT), (0, 4000, MOVE), (4000, 4499, WAIT), (4000, 4500, MOVE)],
)
def test_somebody_who_stays(checked_at: int, used: int, expected: Action) -> None:
    """A gap would be in vain, so what can be moved is moved from time to time."""
    assert decided(SETTINGS, used, checked_at=checked_at, pinned=True) is expected


@pytest.mark.parametrize(
    ("settings", "used", "expected"),
    [
        (SETTINGS, 6999, False),
        (SETTINGS, 7000, True),
        (EQUAL, 1749, False),
        (EQUAL, 1750, True),
        (NO_HARD, 10**9, False),
        (NO_SOFT, 7000, True),
    ],
)
def test_when_writers_wait_too(settings: WalSettings, used: int, expected: bool) -> None:
    """This is at 1¾ times the hard limit, before SQLite moves the log in a commit."""
    assert too_large(log(used), settings) is expected


@pytest.mark.parametrize("settings", [SETTINGS, EQUAL, NO_GAPS])
def test_writers_wait_before_sqlite_steps_in(settings: WalSettings) -> None:
    """SQLite's own checkpoint comes later than all of these."""
    assert settings.largest is not None
    assert too_large(log(settings.largest), settings)
    assert not too_large(log(settings.hard_limit or 0), settings)

"""``WalSettings``: checked on construction."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool import ConfigurationError, ReaderPool, SQLiteDatabase, SQLitePool, WalSettings
from sa_sqlite_pool.settings import check_wal_settings
from tests.conftest import MakeEngine

MIB = 1024 * 1024


def test_the_defaults() -> None:
    """The limits are 16 and 64 MiB, and readers give way for half a second."""
    assert dataclasses.astuple(WalSettings()) == (16 * MIB, 64 * MIB, 0.5, None)


@pytest.mark.parametrize("name", ["soft_limit", "hard_limit"])
@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "16 MiB", float("inf")])
def test_limits_are_whole_numbers_of_bytes(name: str, wrong: Any) -> None:
    """The message names the limit, its unit, and the given value."""
    with pytest.raises(
        ConfigurationError,
        match=re.escape(
            f"{name} of WalSettings, in bytes, must be a whole number of at least 1, not {wrong!r}"
        ),
    ):
        WalSettings(**{name: wrong})


def test_the_hard_limit_is_not_below_the_soft_one() -> None:
    """Equal limits are accepted, and so is either alone."""
    with pytest.raises(
        ConfigurationError,
        match=r"^hard_limit of WalSettings must be at least soft_limit \(1000 bytes\), not 999$",
    ):
        WalSettings(soft_limit=1000, hard_limit=999)
    WalSettings(soft_limit=1000, hard_limit=1000)
    WalSettings(soft_limit=None, hard_limit=1)
    WalSettings(soft_limit=10**12, hard_limit=None)


def test_raising_the_soft_limit_alone_says_what_to_do() -> None:
    """The soft limit exceeds the default of the other."""
    with pytest.raises(ConfigurationError, match="hard_limit of WalSettings must be at least"):
        WalSettings(soft_limit=65 * MIB)


@pytest.mark.parametrize("name", ["reader_gap", "max_snapshot_age"])
@pytest.mark.parametrize("wrong", [-0.1, True, "1", float("nan")])
def test_times_are_seconds(name: str, wrong: Any) -> None:
    """They must be numbers, and not negative."""
    message = f"{name} of WalSettings must be a number of seconds ≥ 0, not {wrong!r}"
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        WalSettings(**{name: wrong})


def test_a_gap_needs_a_time() -> None:
    """None is not a number, and 0 means never; a snapshot may have no maximum age."""
    with pytest.raises(ConfigurationError, match="reader_gap of WalSettings"):
        WalSettings(reader_gap=None)  # type: ignore[arg-type]
    assert WalSettings(reader_gap=0).reader_gap == 0.0
    assert WalSettings(max_snapshot_age=None).max_snapshot_age is None


def test_times_become_floats() -> None:
    """This makes them compare and print alike."""
    settings = WalSettings(reader_gap=1, max_snapshot_age=60)
    assert isinstance(settings.reader_gap, float)
    assert isinstance(settings.max_snapshot_age, float)


@pytest.mark.parametrize(
    ("settings", "largest"),
    [
        (WalSettings(soft_limit=1000, hard_limit=4000), 8000),
        (WalSettings(soft_limit=1000, hard_limit=None), 4000),
        (WalSettings(soft_limit=None, hard_limit=4000), None),
        (WalSettings(soft_limit=None, hard_limit=None), None),
    ],
)
def test_when_a_commit_waits_no_longer(settings: WalSettings, largest: int | None) -> None:
    """The limit is twice the hard limit; without a keeper there is none."""
    assert settings.largest == largest


def test_it_cannot_be_changed_afterwards() -> None:
    """Validated values cannot change."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        WalSettings().reader_gap = 1.0  # type: ignore[misc]


def test_anything_else_is_refused(path: Path, make_engine: MakeEngine) -> None:
    """Every door refuses it before the file is touched."""
    settings = WalSettings()
    assert check_wal_settings(settings) is settings
    assert check_wal_settings(None) == settings
    wrong: Any = {"soft_limit": 1}
    with pytest.raises(ConfigurationError, match=r"wal must be a WalSettings, not \{'soft_limit'"):
        SQLiteDatabase(path, wal=wrong)
    for pool in (SQLitePool, ReaderPool):
        with pytest.raises(ConfigurationError, match="wal must be a WalSettings"):
            make_engine(pool, wal=wrong)
    assert not path.exists()


@pytest.mark.parametrize(
    ("settings", "pages"),
    [
        (WalSettings(soft_limit=64 * 1024, hard_limit=256 * 1024), 0),
        (WalSettings(soft_limit=64 * 1024, hard_limit=None), 0),
        (WalSettings(soft_limit=None), 1000),
    ],
)
async def test_sqlites_own_checkpoints(path: Path, settings: WalSettings, pages: int) -> None:
    """They are off if the log has a keeper and the application does not request them."""
    for pragmas, expected in (({}, pages), ({"wal_autocheckpoint": 7}, 7)):
        async with (
            SQLiteDatabase(path, wal=settings, pragmas=pragmas) as db,
            db.writer_engine.connect() as connection,
        ):
            result = await connection.exec_driver_sql("PRAGMA wal_autocheckpoint")
            assert result.scalar() == expected

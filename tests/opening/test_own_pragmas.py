"""PRAGMAs that the application sets while opening a connection persist, unless passed in."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.doors.other_drivers import creator_of

SET = {"synchronous": 3, "cache_size": -50_000, "temp_store": 1, "journal_size_limit": 1_000_000}
DEFAULTS = {"synchronous": 1, "cache_size": -16 * 1024, "temp_store": 2}


def set_all(connection: sqlite3.Connection) -> sqlite3.Connection:
    for name, value in SET.items():
        connection.execute(f"PRAGMA {name} = {value}")
    return connection


class Factory(sqlite3.Connection):
    """A connection class of the application, which sets up each of its connections."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        set_all(self)


def ways_to_set(path: Path) -> dict[str, dict[str, Any]]:
    return {
        "creator": {"async_creator": creator_of(lambda: set_all(sqlite3.connect(path)))},
        "factory": {"connect_args": {"factory": Factory}},
    }


async def found(engine: AsyncEngine) -> dict[str, int]:
    async with engine.connect() as connection:
        return {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in SET
        }


@pytest.mark.parametrize("pool", [SQLitePool, WriterPool])
@pytest.mark.parametrize("way", ["creator", "factory"])
async def test_they_stay(pool: type, way: str, path: Path, make_engine: MakeEngine) -> None:
    """As on a stock engine, the application chooses how much is synced and kept in memory."""
    engine = make_engine(pool, **ways_to_set(path)[way])
    assert await found(engine) == SET


@pytest.mark.parametrize("way", ["creator", "factory"])
async def test_a_readers_stay(way: str, path: Path, make_engine: MakeEngine) -> None:
    engine = make_engine(ReaderPool, **ways_to_set(path)[way])
    assert await found(engine) == SET


@pytest.mark.parametrize("way", ["creator", "factory"])
async def test_those_that_are_given_come_first(
    way: str, path: Path, make_engine: MakeEngine
) -> None:
    """They do so even if they equal the pool's own defaults."""
    given = {"synchronous": "NORMAL", "cache_size": -16 * 1024}
    engine = make_engine(SQLitePool, pragmas=given, **ways_to_set(path)[way])
    assert await found(engine) == {**SET, "synchronous": 1, "cache_size": -16 * 1024}


async def test_what_is_as_sqlite_has_it_is_set(path: Path, make_engine: MakeEngine) -> None:
    """Connections of a creator that sets nothing get the pool's defaults."""
    creator = creator_of(lambda: sqlite3.connect(path))
    engine = make_engine(SQLitePool, async_creator=creator)
    assert (await found(engine)).items() >= DEFAULTS.items()

"""A busy timeout of the application that is longer than this package's wait is respected."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLitePool, WriteTimeout
from tests.helpers import until
from tests.waiting import pauses

from .doors import outside

MakeEngine = Callable[..., AsyncEngine]

# The engine itself waits for nothing, so each wait is due to the application.
NO_WAIT = 0.0
LONG = 60

TRIES = 5


@pytest.fixture(autouse=True)
def waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sa_sqlite_pool.pools.base.DEFAULT_TIMEOUT", NO_WAIT)


def by_connect_args(make: MakeEngine, seconds: float, **options: Any) -> AsyncEngine:
    return make(SQLitePool, connect_args={"timeout": seconds}, **options)


def by_listener(make: MakeEngine, seconds: float, **options: Any) -> AsyncEngine:
    engine = make(SQLitePool, **options)

    @event.listens_for(engine.sync_engine, "connect")
    def set_it(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        cursor.close()

    return engine


def by_creator(make: MakeEngine, seconds: float, **options: Any) -> AsyncEngine:
    async def creator() -> aiosqlite.Connection:
        connection = aiosqlite.connect(str(engine.url.database), timeout=seconds)
        connection._thread.daemon = True
        return await connection

    engine = make(SQLitePool, async_creator=creator, **options)
    return engine


def by_factory(make: MakeEngine, seconds: float, **options: Any) -> AsyncEngine:
    class Own(sqlite3.Connection):
        def __init__(self, *args: Any, **kw: Any) -> None:
            super().__init__(*args, **kw)
            self.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    return make(SQLitePool, connect_args={"factory": Own}, **options)


ways = pytest.mark.parametrize("way", [by_connect_args, by_listener, by_creator, by_factory])


async def write(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO t VALUES (1)"))


async def waits(work: Awaitable[None]) -> bool:
    """Return whether ``work`` requests a lock repeatedly; it continues in a task."""
    task = asyncio.ensure_future(work)
    with pauses() as found:
        await until(lambda: found.count >= TRIES or task.done())
    waiting = not task.done()
    task.cancel()
    await asyncio.wait([task])
    return waiting


async def created(engine: AsyncEngine) -> AsyncEngine:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS t (x)"))
    return engine


@ways
async def test_another_program_writes(make_engine: MakeEngine, path: Path, way: Any) -> None:
    """The write waits for SQLite's lock for the application's time."""
    engine = await created(way(make_engine, LONG))
    with outside(path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await waits(write(engine))


@ways
async def test_another_task_writes(make_engine: MakeEngine, way: Any) -> None:
    """So does the wait for the write turn."""
    engine = await created(way(make_engine, LONG))
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO t VALUES (1)"))
        task = asyncio.ensure_future(write(engine))
        pool: Any = engine.pool
        await until(lambda: pool.database_file.turn.waiting or task.done())
        assert not task.done()
    await task


@ways
async def test_it_is_read_back(make_engine: MakeEngine, way: Any) -> None:
    engine = way(make_engine, LONG)
    async with engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA busy_timeout"))).scalar_one() == LONG * 1000


@pytest.mark.parametrize(
    ("seconds", "read_back"),
    [(Decimal(LONG), LONG * 1000), (float("inf"), 2_147_483_000), (-1, 0)],
)
async def test_what_sqlite3_takes_is_taken(
    make_engine: MakeEngine, seconds: Any, read_back: int
) -> None:
    """Any number is accepted; a negative one means zero, and there is a maximum."""
    engine = make_engine(SQLitePool, connect_args={"timeout": seconds})
    async with engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA busy_timeout"))).scalar_one() == read_back


@ways
async def test_what_is_given_to_the_engine_counts_alone(
    make_engine: MakeEngine, path: Path, way: Any
) -> None:
    engine = way(make_engine, LONG, write_timeout=NO_WAIT, read_timeout=NO_WAIT)
    await created(engine)
    with outside(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(WriteTimeout):
            await write(engine)


@ways
async def test_a_shorter_one_does_not(
    make_engine: MakeEngine, path: Path, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    """No task waits for less time than without it."""
    monkeypatch.setattr("sa_sqlite_pool.pools.base.DEFAULT_TIMEOUT", float(LONG))
    engine = await created(way(make_engine, NO_WAIT))
    with outside(path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await waits(write(engine))


@pytest.mark.parametrize("given", [False, True])
async def test_a_reader_without_wal(make_engine: MakeEngine, path: Path, given: bool) -> None:
    """A reader waits as long for the lock of a rollback journal."""
    journal = {"pragmas": {"journal_mode": "TRUNCATE"}}
    await created(make_engine(SQLitePool, write_timeout=5.0, read_timeout=5.0, **journal))
    options = {"read_timeout": NO_WAIT} if given else {}
    engine = make_engine(ReaderPool, connect_args={"timeout": LONG}, **journal, **options)

    async def read() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT count(*) FROM t"))

    await read()
    with outside(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        if given:
            with pytest.raises(OperationalError, match=r"waited 0\.00 s to read"):
                await read()
        else:
            assert await waits(read())


@pytest.mark.parametrize("given", [False, True])
async def test_a_commit_without_wal(make_engine: MakeEngine, path: Path, given: bool) -> None:
    """A COMMIT waits as long for reads of another program."""
    journal = {"pragmas": {"journal_mode": "TRUNCATE"}}
    options = {"write_timeout": NO_WAIT} if given else {}
    engine = await created(by_connect_args(make_engine, LONG, **journal, **options))
    with outside(path) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM t").fetchall()
        if given:
            with pytest.raises(WriteTimeout):
                await write(engine)
        else:
            assert await waits(write(engine))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, False),
        ({"write_timeout": 1.0}, True),
        ({"read_timeout": 1.0}, True),
        ({"write_timeout": float(LONG), "read_timeout": 1.0}, False),
    ],
)
async def test_it_is_said_where_it_is_not_used(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture, options: Any, said: bool
) -> None:
    with caplog.at_level(logging.WARNING, logger="sa_sqlite_pool"):
        await created(by_connect_args(make_engine, LONG, **options))
    assert bool(caplog.records) is said

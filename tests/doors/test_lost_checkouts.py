"""A checkout that fails inside SQLAlchemy before it has a proxy releases what it has acquired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool.base import _ConnectionFairy
from sqlalchemy.util import greenlet_spawn

from sa_sqlite_pool import (
    SQLiteDatabase,
    TurnAlreadyHeldError,
)
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.helpers import ONE_CONNECTION, amounts, create_items


@asynccontextmanager
async def opened(path: Path, make_engine: MakeEngine, door: str) -> AsyncIterator[AsyncEngine]:
    """Yield an engine with one connection, by the given door."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        yield db.writer_engine if door == "facade" else make_engine(**ONE_CONNECTION[door])


class Fails:
    """Makes the creation of SQLAlchemy's proxy fail once, by lack of memory or another error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.left: list[BaseException] = [error]
        init = _ConnectionFairy.__init__

        def begin(proxied: Any, *args: Any, **kw: Any) -> None:
            if self.left:
                raise self.left.pop()
            init(proxied, *args, **kw)

        monkeypatch.setattr(_ConnectionFairy, "__init__", begin)


class Stop(BaseException):
    """The exception that a signal handler raises."""


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no thread"), Stop()])
@pytest.mark.parametrize("door", [*ONE_CONNECTION, "facade"])
async def test_the_next_task_has_it(
    path: Path,
    make_engine: MakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    door: str,
    error: BaseException,
) -> None:
    """Stock loses a slot of its pool; here, the write turn would be lost to all writers."""
    async with opened(path, make_engine, door) as engine:
        await amounts(engine)
        fails = Fails(monkeypatch, error)
        with pytest.raises(type(error)):
            await engine.connect()
        assert not fails.left
        assert isinstance(engine.pool, FairPool)
        assert engine.pool.checkedout() == 0
        assert await asyncio.wait_for(amounts(engine), 10) == [0, 0, 0]


@pytest.mark.parametrize("door", [*ONE_CONNECTION, "facade"])
async def test_one_that_a_listener_has_closed(
    path: Path, make_engine: MakeEngine, door: str
) -> None:
    """A listener closes SQLite's connection beneath aiosqlite; the checkout ends at once."""
    async with opened(path, make_engine, door) as engine:
        await amounts(engine)
        closes = [True]

        @event.listens_for(engine.sync_engine, "checkout")
        def close(connection: Any, *_: object) -> None:
            if closes:
                closes.pop()
                connection.driver_connection._conn.close()

        with pytest.raises(ProgrammingError, match="closed database") as raised:
            await engine.connect()
        assert isinstance(engine.pool, FairPool)
        assert engine.pool.checkedout() == 0
        assert await asyncio.wait_for(amounts(engine), 10) == [0, 0, 0]
        del raised


@pytest.mark.parametrize("door", [*ONE_CONNECTION, "facade"])
async def test_two_listeners_that_fail(path: Path, make_engine: MakeEngine, door: str) -> None:
    """One listener of ``checkout``, then one of ``close``: a kept error keeps no connection.

    On stock with Python 3.10, the slot is lost while the error is kept.
    """
    async with opened(path, make_engine, door) as engine:
        await amounts(engine)
        left = ["checkout", "close"]

        def fail(*_: object) -> None:
            if left:
                raise ZeroDivisionError(left.pop(0))

        for name in list(left):
            event.listen(engine.sync_engine, name, fail)
        with pytest.raises(ZeroDivisionError) as raised:
            await engine.connect()
        assert not left
        assert isinstance(engine.pool, FairPool)
        assert engine.pool.checkedout() == 0
        assert await asyncio.wait_for(amounts(engine), 10) == [0, 0, 0]
        del raised


async def test_while_its_connection_is_set_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a ``connect`` listener checks out from the same engine, only its own checkout fails."""
    async with SQLiteDatabase(path, readers=3) as db, db.reader_engine.connect():
        await create_items(db.writer_engine)
        engine = db.reader_engine.sync_engine
        pool = engine.pool
        assert isinstance(pool, FairPool)
        asked: list[Fails] = []

        @event.listens_for(engine, "connect")
        def ask(*_: object) -> None:
            if not asked:
                asked.append(Fails(monkeypatch, MemoryError()))
                with pytest.raises(MemoryError):
                    engine.connect()
                assert pool.checkedout() == 2

        async with db.reader_engine.connect() as connection:
            assert pool.checkedout() == 2
            assert await connection.scalar(text("SELECT count(*) FROM items")) == 3
        assert pool.checkedout() == 1
        assert asked


async def test_a_checkout_within_another_that_is_refused(path: Path) -> None:
    """The outer checkout continues, and holds the turn until it is returned."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await db.writer_engine.dispose()
        engine, refused = db.writer_engine.sync_engine, list[bool]()

        @event.listens_for(engine, "connect")
        def ask(*_: object) -> None:
            with pytest.raises(TurnAlreadyHeldError):
                engine.connect()
            refused.append(True)

        async with db.writer_engine.connect() as connection:
            assert refused == [True]
            assert isinstance(engine.pool, FairPool)
            assert engine.pool.checkedout() == 1
            assert engine.pool.line.held == 1
            assert await connection.scalar(text("SELECT count(*) FROM items")) == 3
        assert engine.pool.line.held == 0


async def test_one_that_a_listener_keeps(path: Path) -> None:
    """A connection that a listener has checked out during a failing checkout remains its own."""
    async with SQLiteDatabase(path, readers=3) as db:
        await create_items(db.writer_engine)
        await keep_one_in_a_listener(db.reader_engine)


async def keep_one_in_a_listener(engine: AsyncEngine) -> None:
    """Let a listener of ``checkout`` connect and then fail; its connection works until closed."""
    sync_engine = engine.sync_engine
    kept: list[Any] = []
    pool: Any = sync_engine.pool

    @event.listens_for(sync_engine, "checkout")
    def connect_and_fail(*_: object) -> None:
        if not kept:
            kept.append(None)
            kept.append(sync_engine.connect())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await engine.connect()
    assert pool.checkedout() == 1
    assert await greenlet_spawn(lambda: kept[1].scalar(text("SELECT 1"))) == 1
    await greenlet_spawn(kept[1].close)
    assert pool.checkedout() == 0

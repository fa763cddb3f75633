"""Connections with an isolation level of their own that are returned while others write."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLitePool, WriterPool
from sa_sqlite_pool.turn.file_turn import FileTurn
from tests.campaigns import OnPurpose
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items

LEVELS = pytest.mark.parametrize("level", ["AUTOCOMMIT", "READ UNCOMMITTED", "SERIALIZABLE"])


class Using:
    """Writes, and returns the connection while others write, upon which its level is reset."""

    def __init__(self, engine: AsyncEngine, level: str) -> None:
        self._engine = engine
        self._level = level
        self._has_written = asyncio.Event()
        self.others_write = asyncio.Event()
        self.task = asyncio.ensure_future(self._use())

    async def until_written(self) -> None:
        await self._has_written.wait()

    async def _use(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level=self._level)
            await connection.execute(UPDATE_FIRST)
            await connection.commit()
            self._has_written.set()
            await self.others_write.wait()


@LEVELS
async def test_no_wait_for_the_turn(swap_in: AsyncEngine, level: str) -> None:
    """Nor does a holder of the turn wait for itself when it returns another connection."""
    await create_items(swap_in)
    using = Using(swap_in.execution_options(sqlite_role="writer"), level)
    await using.until_written()
    async with swap_in.begin() as connection:
        await connection.execute(UPDATE_FIRST)
        using.others_write.set()
        await asyncio.wait_for(using.task, 5)


@LEVELS
@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_no_wait_for_another_process(
    make_engine: MakeEngine, path: Path, poolclass: type, level: str
) -> None:
    """A process that holds the turn does not delay the return of a connection."""
    engine = make_engine(poolclass).execution_options(sqlite_role="writer")
    await create_items(engine)
    using = Using(engine, level)
    await using.until_written()
    request = FileTurn(str(path)).acquire_nowait()
    assert request is not None
    with request:
        using.others_write.set()
        await asyncio.wait_for(using.task, 5)


@LEVELS
async def test_the_first_statement_takes_the_turn(swap_in: AsyncEngine, level: str) -> None:
    """Rows that are read after the level was set stay true until they are written."""
    await create_items(swap_in)
    async with swap_in.execution_options(sqlite_role="writer").connect() as connection:
        await connection.execution_options(isolation_level=level)
        assert not (await connection.get_raw_connection()).in_transaction
        await connection.execute(text("SELECT amount FROM items"))
        in_transaction = (await connection.get_raw_connection()).in_transaction
        assert in_transaction is (level != "AUTOCOMMIT")


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
@pytest.mark.parametrize("end", ["close", "stop"])
async def test_one_that_was_closed_is_given_back(
    make_engine: MakeEngine, poolclass: type, end: str
) -> None:
    """Its write has been committed, and there is no level left to reset."""
    engine = make_engine(poolclass)
    await create_items(engine)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(UPDATE_FIRST)
        raw = (await connection.get_raw_connection()).driver_connection
        assert isinstance(raw, aiosqlite.Connection)
        if (ended := getattr(raw, end)()) is not None:
            await ended
    assert await amounts(engine) == [1, 0, 0]


async def test_an_error_of_the_level_is_raised(
    swap_in: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the connection is sound, the error is raised, and no checkout gets it with that level."""

    def fail(_: object) -> None:
        raise OnPurpose

    await create_items(swap_in)
    with pytest.raises(OnPurpose):
        async with swap_in.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            monkeypatch.setattr(swap_in.dialect, "reset_isolation_level", fail)
    monkeypatch.undo()
    async with swap_in.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        await connection.rollback()
    assert await amounts(swap_in) == [0, 0, 0]

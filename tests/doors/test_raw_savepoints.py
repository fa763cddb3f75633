"""SQLAlchemy's savepoints around statements on the raw connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sa_sqlite_pool import SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.doors.turns import is_locked
from tests.helpers import UPDATE_FIRST, amounts, create_items, turn_of

POOLS = [None, SQLitePool, WriterPool]


async def raw_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("also", [False, True])
async def test_one_that_is_undone(
    make_engine: MakeEngine, pool: type | None, before: bool, also: bool
) -> None:
    """It undoes those statements, whenever the raw connection was requested."""
    await create_items(make_engine(SQLitePool))
    engine = make_engine(pool)
    async with engine.connect() as connection:
        if before:
            await raw_of(connection)
        async with connection.begin_nested() as savepoint:
            raw = await raw_of(connection)
            await raw.execute("UPDATE items SET amount = 7")
            if also:
                await connection.execute(UPDATE_FIRST)
            await savepoint.rollback()
        await connection.execute(text("UPDATE items SET amount = 9 WHERE id = 3"))
        await connection.commit()
    assert await amounts(engine) == [0, 0, 9]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("pool", [None, SQLitePool])
async def test_one_that_is_ended_there(
    make_engine: MakeEngine, path: Path, pool: type | None, end: str
) -> None:
    """The application can then begin another transaction."""
    await create_items(make_engine(SQLitePool))
    engine = make_engine(pool)
    async with engine.connect() as connection:
        raw = await raw_of(connection)
        await connection.execute(text("SAVEPOINT a"))
        await getattr(raw, end)()
        await connection.execute(text("BEGIN IMMEDIATE"))
        assert is_locked(path)
        await connection.rollback()
    assert turn_of(path).holder is None

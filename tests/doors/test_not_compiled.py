"""A statement that SQLite cannot compile keeps neither lock nor turn, as on stock."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.doors.turns import is_locked, stock_engine
from tests.helpers import UPDATE_FIRST, amounts, create_items, turn_of

NOT_COMPILED = [
    "INSERT INTO nowhere VALUES (1)",
    "UPDATE items SET nothing = 1",
    "DELETE FROM items WHERE nothing = 1",
    "WITH one(i) AS (SELECT 1) DELETE FROM nowhere",
    "INSERT INTO items (id) VALUES (1, 2)",
    "INSERT INTO items (id) SELECT unknown(id) FROM items",
    "CREATE TABLE items (i)",
    "CREATE INDEX i ON nowhere (i)",
    "DROP TABLE nowhere",
    "ALTER TABLE nowhere RENAME TO somewhere",
    "UPDATE items SET amount = 1; UPDATE items SET amount = 2",
    "REINDEX nowhere",
]
FAILS = "INSERT INTO items (id) VALUES (1)"


@pytest.fixture(params=["stock", "SQLitePool", "SQLitePool, begin"])
async def engine(
    request: pytest.FixtureRequest, make_engine: MakeEngine, path: Path
) -> AsyncEngine:
    """Return an engine with a table; the last sends BEGIN as in SQLAlchemy's documentation."""
    await create_items(make_engine(SQLitePool))
    if request.param == "stock":
        return stock_engine(make_engine, path)
    engine = make_engine(SQLitePool)
    if request.param.endswith("begin"):

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

    return engine


@pytest.mark.parametrize("sql", NOT_COMPILED)
async def test_nothing_is_locked(engine: AsyncEngine, path: Path, sql: str) -> None:
    """This holds while the connection is still checked out, without a rollback."""
    async with engine.connect() as connection:
        with pytest.raises((DBAPIError, sqlite3.Warning)):
            await connection.exec_driver_sql(sql)
        assert not is_locked(path)
        assert turn_of(path).holder is None
        await connection.execute(UPDATE_FIRST)
        assert is_locked(path)
        await connection.commit()
    assert (await amounts(engine))[0] == 1


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("UPDATE items SET amount = ?", ()),
        ("UPDATE items SET amount = 1", (1,)),
        ("UPDATE items SET amount = ?", (object(),)),
        ("UPDATE items SET amount = ?", (2**70,)),
        ("UPDATE items SET amount = ?, nothing = 1", [(1,), (2,)]),
    ],
)
async def test_values_that_do_not_fit(
    engine: AsyncEngine, path: Path, sql: str, values: Any
) -> None:
    async with engine.connect() as connection:
        with pytest.raises((DBAPIError, OverflowError)):
            await connection.exec_driver_sql(sql, values)
        assert not is_locked(path)
        assert turn_of(path).holder is None


async def test_what_ran_and_failed_keeps_its_lock(engine: AsyncEngine, path: Path) -> None:
    """A constraint is checked only at run time; later reads belong to that transaction."""
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.exec_driver_sql(FAILS)
        assert is_locked(path)
        await connection.rollback()
        assert not is_locked(path)


async def test_a_transaction_that_has_written_keeps_its_lock(
    engine: AsyncEngine, path: Path
) -> None:
    async with engine.connect() as connection:
        await connection.execute(UPDATE_FIRST)
        for sql in NOT_COMPILED:
            with pytest.raises((DBAPIError, sqlite3.Warning)):
                await connection.exec_driver_sql(sql)
        assert is_locked(path)
        await connection.commit()
    assert (await amounts(engine))[0] == 1


async def test_a_savepoint_is_there_still(engine: AsyncEngine, path: Path) -> None:
    """The savepoint can still be rolled back to, even after a later write in it."""
    async with AsyncSession(engine) as session:
        for _ in range(2):
            with pytest.raises(OperationalError, match="no such table: nowhere"):
                async with session.begin_nested():
                    await session.execute(text(NOT_COMPILED[0]))
        assert turn_of(path).holder is None
        async with session.begin_nested() as outer:
            with pytest.raises(OperationalError, match="no such table: nowhere"):
                await session.execute(text(NOT_COMPILED[0]))
            await session.execute(UPDATE_FIRST)
            await outer.rollback()
        await session.execute(text("UPDATE items SET amount = 7 WHERE id = 2"))
        await session.commit()
    assert await amounts(engine) == [0, 7, 0]


async def test_an_attached_file_is_not_locked(
    engine: AsyncEngine, make_engine: MakeEngine, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    await create_items(make_engine(SQLitePool, url=f"sqlite+aiosqlite:///{other}"))
    async with engine.connect() as connection:
        await connection.exec_driver_sql(f"ATTACH '{other}' AS other")
        await connection.rollback()
        with pytest.raises(OperationalError, match=r"no such table: other\.nowhere"):
            await connection.exec_driver_sql("INSERT INTO other.nowhere VALUES (1)")
        assert not any(is_locked(file) for file in (path, other))
        assert turn_of(path).holder is None
        await connection.rollback()
        assert turn_of(other).holder is None
        await connection.exec_driver_sql("DETACH other")

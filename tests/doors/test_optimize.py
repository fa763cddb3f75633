"""PRAGMA optimize, which listeners execute on each new connection, as SQLite recommends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import SQLitePool
from tests.conftest import MakeEngine
from tests.doors.turns import turn_taken
from tests.helpers import create_items, turn_of

OPTIMIZE = ["PRAGMA optimize", "PRAGMA optimize = 0x10002", "PRAGMA main.optimize(0x10002)"]
STATISTICS = text("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'")


@pytest.fixture(params=OPTIMIZE)
def optimize(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def optimizing(make_engine: MakeEngine, sql: str, **options: Any) -> AsyncEngine:
    engine = make_engine(SQLitePool, **options)

    @event.listens_for(engine.sync_engine, "connect")
    def execute(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(sql)
        cursor.close()

    return engine


async def test_a_new_connection_waits_for_no_turn(
    make_engine: MakeEngine, path: Path, optimize: str
) -> None:
    """If there is nothing to optimize, a reader continues beside a writer.

    Since SQLite 3.46, a table without statistics counts as something to optimize.
    """
    analyzed = make_engine(SQLitePool)
    await create_items(analyzed)
    async with analyzed.begin() as connection:
        await connection.execute(text("ANALYZE"))
    engine = optimizing(make_engine, optimize, write_timeout=0.05)
    async with turn_taken(path) as asked, engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM items")) == 3
        assert asked() == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_there_is_to_do_is_done_in_the_turn(
    make_engine: MakeEngine, path: Path, optimize: str, streamed: bool
) -> None:
    """The same applies within a transaction, whose lock it uses, and as a stream without rows."""
    engine = make_engine(SQLitePool)
    await create_items(engine)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE INDEX wanted ON items (amount)"))
        await connection.execute(text("ANALYZE"))
        many = "WITH RECURSIVE n(i) AS (SELECT 9 UNION ALL SELECT i + 1 FROM n LIMIT 9999) "
        await connection.execute(
            text(f"INSERT INTO items SELECT i, i FROM ({many} SELECT i FROM n)")
        )
    async with engine.connect() as connection:
        await connection.execute(text("SELECT id FROM items WHERE amount = 5"))  # uses statistics
        async with turn_taken(path) as asked:
            saying = await connection.execute(text("PRAGMA optimize(-1)"))
            assert saying.scalar() == 'ANALYZE "main"."items"'
            assert asked() == 0
        before = (await connection.execute(text("SELECT stat FROM sqlite_stat1"))).scalar()
        if streamed:
            assert await (await connection.stream(text(optimize))).all() == []
        else:
            await connection.execute(text(optimize))
        after = (await connection.execute(text("SELECT stat FROM sqlite_stat1"))).scalar()
        assert before != after
    assert turn_of(path).holder is None

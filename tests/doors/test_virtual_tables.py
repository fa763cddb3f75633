"""Virtual tables are read like any others; connecting them for the first time is no write."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.doors.turns import turn_taken

SCHEMA = [
    "CREATE TABLE plain (id INTEGER PRIMARY KEY, body)",
    "INSERT INTO plain VALUES (1, 'a word')",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)",
    "INSERT INTO boxes VALUES (1, 2, 3)",
    "CREATE VIRTUAL TABLE four USING fts4(body)",
    "INSERT INTO four VALUES ('a word')",
    "CREATE VIRTUAL TABLE five USING fts5(body)",
    "INSERT INTO five VALUES ('a word')",
    "CREATE VIRTUAL TABLE words USING fts5vocab('five', 'row')",
    "CREATE VIEW found AS SELECT low FROM boxes, five WHERE five MATCH 'word'",
]

READS = {
    "SELECT low FROM boxes": 2,
    "SELECT count(*) FROM boxes WHERE low < 5 AND high > 1": 1,
    "SELECT body FROM four WHERE four MATCH 'word'": "a word",
    "SELECT body FROM five WHERE five MATCH 'word'": "a word",
    "SELECT snippet(five, 0, '<', '>', '…', 3) FROM five WHERE five MATCH 'word'": "a <word>",
    "SELECT doc FROM words WHERE term = 'word'": 1,
    "SELECT low FROM found": 2,
    "WITH some AS (SELECT low FROM boxes) SELECT max(low) FROM some": 2,
    "SELECT plain.id FROM plain JOIN five ON five.rowid = plain.id": 1,
    "SELECT value FROM json_each('[7]')": 7,
    "SELECT atom FROM json_tree('[7]') WHERE atom": 7,
    "SELECT name FROM pragma_table_info('plain') LIMIT 1": "id",
    "SELECT user_version FROM pragma_user_version": 0,
    "SELECT name FROM dbstat WHERE name = 'plain'": "plain",
}

WRITES = [
    "INSERT INTO boxes VALUES (5, 6, 7)",
    "DELETE FROM boxes WHERE id = 1",
    "INSERT INTO five VALUES ('more')",
    "INSERT INTO five(five) VALUES ('optimize')",
    "UPDATE four SET body = 'another'",
    "SELECT optimize(four) FROM four LIMIT 1",
    "SELECT * FROM pragma_optimize",
    "CREATE VIRTUAL TABLE more USING fts5(body)",
    "DROP TABLE five",
]


@pytest.fixture
async def database(path: Path, make_engine: MakeEngine) -> Path:
    async with make_engine(WriterPool).begin() as connection:
        for sql in SCHEMA:
            await connection.execute(text(sql))
    return path


def skip_if_not_compiled(sql: str) -> None:
    connection = sqlite3.connect(":memory:")
    if "dbstat" in sql:
        try:
            connection.execute("SELECT * FROM dbstat")
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has none")
    connection.close()


@pytest.fixture(params=["swap-in", "reader", "role"])
def reading(request: pytest.FixtureRequest, make_engine: MakeEngine) -> AsyncEngine:
    if request.param == "reader":
        return make_engine(ReaderPool)
    engine = make_engine(SQLitePool)
    return engine.execution_options(sqlite_role="reader") if request.param == "role" else engine


@pytest.mark.parametrize("sql", READS)
async def test_a_read_on_a_fresh_connection_waits_for_no_turn(
    database: Path, reading: AsyncEngine, sql: str
) -> None:
    """It never requests the turn, at first or later, alone or in a transaction."""
    skip_if_not_compiled(sql)
    async with turn_taken(database) as asked, reading.connect() as connection:
        for _ in range(3):
            assert (await connection.execute(text(sql))).scalars().first() == READS[sql]
        await connection.rollback()
        assert (await connection.execute(text(sql))).scalars().first() == READS[sql]
        assert asked() == 0


async def test_a_temp_table_is_filled_from_one(database: Path, reading: AsyncEngine) -> None:
    """The first statement of a fresh connection connects the virtual table."""
    fill = text("CREATE TEMP TABLE copy AS SELECT low FROM boxes JOIN five WHERE five MATCH 'word'")
    async with turn_taken(database) as asked, reading.connect() as connection:
        await connection.execute(fill)
        assert await connection.scalar(text("SELECT low FROM copy")) == 2
        assert asked() == 0


@pytest.mark.parametrize("sql", READS)
async def test_the_doors_of_the_facade(database: Path, sql: str) -> None:
    """Sessions that read are included, and closures."""
    skip_if_not_compiled(sql)
    async with SQLiteDatabase(database) as db:
        async with turn_taken(database) as asked:
            async with db.read() as session:
                assert (await session.execute(text(sql))).scalars().first() == READS[sql]
            found = await db.run_read_core(lambda c: c.execute(text(sql)).scalars().first())
            assert found == READS[sql]
            assert asked() == 0
        async with db.write() as session:
            assert (await session.execute(text(sql))).scalars().first() == READS[sql]


@pytest.mark.parametrize("sql", READS)
async def test_in_a_stream_and_with_a_temp_table(
    database: Path, swap_in: AsyncEngine, sql: str
) -> None:
    """A stream that was misjudged at first is reopened, and returns all of its rows."""
    skip_if_not_compiled(sql)
    async with turn_taken(database) as asked, swap_in.connect() as connection:
        result = await connection.stream(text(sql), execution_options={"yield_per": 1})
        assert [row[0] async for row in result] == [READS[sql]]
        await connection.execute(text("CREATE TEMP TABLE scratch (i)"))
        await connection.execute(text(f"INSERT INTO scratch {sql}"))
        assert await connection.scalar(text("SELECT i FROM scratch")) == READS[sql]
        assert asked() == 0


async def test_a_function_that_connects_one_takes_the_turn_once(
    database: Path, swap_in: AsyncEngine
) -> None:
    """EXPLAIN does not show what it compiles; it counts as a read once it has been one."""
    check = text("SELECT rtreecheck('main', 'boxes')")
    async with swap_in.connect() as connection:
        for _ in range(2):
            assert await connection.scalar(check) == "ok"
            await connection.rollback()
        async with turn_taken(database) as asked:
            assert await connection.scalar(check) == "ok"
            assert asked() == 0


@pytest.mark.parametrize("sql", WRITES)
async def test_a_write_takes_the_turn(database: Path, swap_in: AsyncEngine, sql: str) -> None:
    """It does so even if the text looks like a read."""
    async with swap_in.connect() as connection:
        await connection.execute(text(sql))
        writing = connection.sync_connection.connection.dbapi_connection.executor  # type: ignore[union-attr]
        assert writing.transaction.writing.begun
        await connection.rollback()
        assert not writing.transaction.writing.begun


@pytest.mark.parametrize("sql", WRITES[:5])
async def test_a_reader_writes_none(database: Path, reading: AsyncEngine, sql: str) -> None:
    """The write is refused before and after the reader has read the table."""
    if "reader" not in str(reading.sync_engine.get_execution_options()) and isinstance(
        reading.pool, SQLitePool
    ):
        pytest.skip("it may write")
    async with reading.connect() as connection:
        for _ in range(2):
            with pytest.raises(Exception, match="cannot change a database"):
                await connection.execute(text(sql))
            await connection.rollback()
            await connection.execute(text("SELECT * FROM boxes, four, five"))


@pytest.mark.parametrize("role", ["auto", "reader"])
async def test_temp_ones_are_the_connections_own(
    database: Path, make_engine: MakeEngine, role: str
) -> None:
    """The tables behind them are temp tables."""
    engine = make_engine(SQLitePool).execution_options(sqlite_role=role)
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE scratch (i)"))
        async with turn_taken(database) as asked:
            for sql in (
                "CREATE VIRTUAL TABLE temp.own USING fts5(body)",
                "INSERT INTO own SELECT body FROM five",
                "CREATE VIRTUAL TABLE temp.tree USING rtree(id, low, high)",
                "INSERT INTO tree SELECT * FROM boxes",
                "UPDATE tree SET high = 9",
            ):
                await connection.execute(text(sql))
            found = await connection.scalar(
                text("SELECT high FROM own, tree WHERE own MATCH 'word'")
            )
            assert found == 9
            assert asked() == 0

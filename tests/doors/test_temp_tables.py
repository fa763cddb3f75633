"""Temp tables belong to the connection: they take no turn, and readers have them, too."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import ForbiddenWriteError, ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from tests.conftest import MakeEngine
from tests.doors.turns import outcome, outcomes, stock_engine, turn_taken
from tests.helpers import amounts, create_items, driver

MEMORY = "sqlite+aiosqlite:///file:/temp_tables?vfs=memdb&uri=true"

SCRATCH = [
    ("CREATE TEMP TABLE scratch (id INTEGER PRIMARY KEY, note)", None),
    ("CREATE TABLE temp.more (id)", None),
    ("CREATE INDEX temp.by_note ON scratch (note)", None),
    ("INSERT INTO scratch SELECT id, 'x' FROM items", None),
    ("INSERT INTO temp.more VALUES (1), (2)", None),
    ("UPDATE scratch SET note = 'y' WHERE id = 2 RETURNING id", [(2,)]),
    ("WITH one AS (SELECT 1 AS id) DELETE FROM scratch WHERE id IN (SELECT id FROM one)", None),
    ("; REPLACE INTO scratch VALUES (9, 'z')", None),
    ("CREATE TEMP VIEW shown AS SELECT note FROM scratch", None),
    ("CREATE TEMP TRIGGER t AFTER DELETE ON scratch BEGIN DELETE FROM more; END", None),
    ("CREATE TEMP TRIGGER u AFTER DELETE ON items BEGIN DELETE FROM more; END", None),
    ("DELETE FROM scratch WHERE id = 9", None),
    ("SELECT count(*) FROM more", [(0,)]),
    ("SELECT note FROM shown ORDER BY note", [("x",), ("y",)]),
    ("ALTER TABLE scratch ADD COLUMN more", None),
    ("ANALYZE temp", None),
    ("DROP VIEW shown", None),
    ("DROP TABLE temp.scratch", None),
    ("INSERT INTO more " + "-- " + 5000 * "x" + "\n VALUES (7)", None),
    ("SELECT id FROM more", [(7,)]),
]


class Doors:
    """Engines that use temp tables without a turn."""

    def __init__(self, make_engine: MakeEngine) -> None:
        self._make = make_engine

    async def open(self, door: str, **options: Any) -> AsyncEngine:
        if door == "memory":
            await create_items(self._make(WriterPool, url=MEMORY))
            return self._make(ReaderPool, url=MEMORY, **options)
        await create_items(self._make(WriterPool))
        if door == "reader":
            return self._make(ReaderPool, **options)
        engine = self._make(SQLitePool, **options)
        return engine.execution_options(sqlite_role="reader") if door == "role" else engine


@pytest.fixture
def doors(make_engine: MakeEngine) -> Doors:
    return Doors(make_engine)


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("door", ["swap-in", "role", "reader", "memory"])
async def test_scratch_space_takes_no_turn(
    doors: Doors, path: Path, door: str, autocommit: bool
) -> None:
    """The turn is not needed for any kind or statement, even while another task writes."""
    engine = await doors.open(door)
    if autocommit:
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection, turn_taken(path) as asked:
        for sql, expected in SCRATCH:
            assert (sql[:40], await outcome(connection, sql)) == (sql[:40], expected)
        await connection.commit()
        assert await outcome(connection, "SELECT id FROM more") == [(7,)]
        assert asked() == 0


async def test_in_a_session_of_the_facade(path: Path) -> None:
    """A reading session has temp tables, and so has one that may write later."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        async with turn_taken(path) as asked, db.read() as session:
            connection = await session.connection()
            for sql, expected in SCRATCH:
                assert await outcome(connection, sql) == expected
            assert asked() == 0


@pytest.mark.parametrize("door", ["role", "memory", "reader"])
async def test_a_reader_writes_nothing_else(doors: Doors, door: str) -> None:
    """This holds whatever it does with temp tables before and afterwards."""
    engine = await doors.open(door)
    async with engine.connect() as connection:
        for sql in (
            "CREATE TEMP TABLE scratch (id)",
            "INSERT INTO scratch VALUES (1)",
            "CREATE TEMP VIEW shown AS SELECT id FROM scratch",
            "CREATE TEMP TRIGGER t INSTEAD OF INSERT ON shown BEGIN DELETE FROM items; END",
            "CREATE TEMP TRIGGER u AFTER DELETE ON scratch BEGIN UPDATE items SET amount = 7; END",
        ):
            assert await outcome(connection, sql) is None
            assert "cannot change" in await outcome(connection, "DELETE FROM items")
        for sql in (
            "INSERT INTO shown VALUES (1)",
            "DELETE FROM scratch",
            "INSERT INTO main.items (amount) SELECT id FROM scratch",
            "CREATE TABLE IF NOT EXISTS other AS SELECT * FROM scratch",
        ):
            assert "cannot change" in await outcome(connection, sql)
        assert await outcome(connection, "SELECT amount FROM items") == [(0,)] * 3


SHADOW = ["CREATE TEMP TABLE items (id, amount)", "INSERT INTO items VALUES (7, 7)"]


@pytest.mark.parametrize(
    "end", ["DROP TABLE temp.items", "ROLLBACK", "ALTER TABLE temp.items RENAME TO others"]
)
@pytest.mark.parametrize("door", ["role", "memory", "reader", "swap-in"])
async def test_a_temp_table_that_shadows_another(
    doors: Doors, path: Path, door: str, end: str
) -> None:
    """Once it is gone, the same statement refers to the file's table."""
    engine = await doors.open(door)
    async with engine.connect() as connection:
        if end == "ROLLBACK":
            await connection.execute(text("BEGIN"))
        assert await outcomes(connection, SHADOW) == [None, None]
        assert await outcome(connection, "SELECT amount FROM items") == [(7,)]
        if end == "ROLLBACK":
            await connection.rollback()
        else:
            await connection.execute(text(end))
            await connection.commit()
        if door == "swap-in":
            await connection.execute(text(SHADOW[1]))
            assert (await driver(connection)).executor.transaction.writing.begun
        else:
            assert "cannot change" in await outcome(connection, SHADOW[1])
        await connection.rollback()
        assert await outcome(connection, "SELECT amount FROM items") == [(0,)] * 3


async def test_a_table_that_is_shadowed_again(doors: Doors, path: Path) -> None:
    """Conversely, a statement that needed the turn no longer does."""
    engine = await doors.open("swap-in")
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE another (id)"))
        await connection.execute(text(SHADOW[1]))
        await connection.rollback()
        await connection.execute(text(SHADOW[0]))
        async with turn_taken(path) as asked:
            await connection.execute(text(SHADOW[1]))
            assert asked() == 0


@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("DELETE FROM scratch", [7, 7, 7]),
        ("INSERT INTO shown VALUES (8)", [8, 8, 8]),
        ("UPDATE items SET amount = (SELECT max(id) FROM scratch)", [1, 1, 1]),
    ],
)
async def test_what_writes_the_file_as_well_takes_the_turn(
    doors: Doors, path: Path, sql: str, written: list[int]
) -> None:
    """Triggers reach further than the text shows."""
    engine = await doors.open("swap-in")
    async with engine.connect() as connection:
        for setup in (
            "CREATE TEMP TABLE scratch (id)",
            "INSERT INTO scratch VALUES (1)",
            "CREATE TEMP VIEW shown AS SELECT id FROM scratch",
            "CREATE TEMP TRIGGER t INSTEAD OF INSERT ON shown "
            "BEGIN UPDATE items SET amount = NEW.id; END",
            "CREATE TEMP TRIGGER u AFTER DELETE ON scratch BEGIN UPDATE items SET amount = 7; END",
        ):
            await connection.execute(text(setup))
        await connection.commit()
        await connection.execute(text(sql))
        assert (await driver(connection)).executor.transaction.writing.begun
        await connection.commit()
    assert await amounts(engine) == written


async def test_many_at_once(doors: Doors, path: Path) -> None:
    """With executemany(), the first row shows what is written, and no row is lost."""
    engine = await doors.open("swap-in")
    async with engine.connect() as connection, turn_taken(path) as asked:
        await connection.execute(text("CREATE TEMP TABLE scratch (id)"))
        insert = text("INSERT INTO scratch VALUES (:id)")
        await connection.execute(insert, [{"id": number} for number in range(3)])

        def by_iterator(sync: Any) -> int:
            cursor = sync.connection.cursor()
            cursor.executemany("INSERT INTO scratch VALUES (?)", ((n,) for n in range(3, 6)))
            cursor.executemany("INSERT INTO scratch VALUES (?)", [])
            return int(cursor.rowcount)

        await connection.run_sync(by_iterator)
        rows = await outcome(connection, "SELECT id FROM scratch ORDER BY id")
        assert rows == [(number,) for number in range(6)]
        assert asked() == 0


class Functions:
    """Functions of an application that write: one raises SQLite's error, one ignores it."""

    def on_connect(self, connection: sqlite3.Connection) -> None:
        def writes() -> str:
            connection.execute("UPDATE items SET amount = amount + 1")
            return "written"

        def swallows() -> str:
            try:
                return writes()
            except sqlite3.Error as error:
                return str(error)

        connection.create_function("writes", 0, writes)
        connection.create_function("swallows", 0, swallows)


@pytest.mark.parametrize("door", ["role", "memory"])
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO scratch SELECT writes()",
        "INSERT INTO scratch SELECT swallows()",
        "CREATE TEMP TABLE filled AS SELECT writes() AS id",
        "CREATE TEMP TABLE filled AS SELECT swallows() AS id",
        "SELECT swallows()",
        "SELECT writes()",
    ],
)
async def test_a_function_in_a_statement_of_a_reader(doors: Doors, door: str, sql: str) -> None:
    """It changes nothing: query_only is off for temp tables, but the authorizer denies it."""
    engine = await doors.open(door, on_connect=Functions().on_connect)
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE scratch (id)"))
        for _ in range(3):
            with pytest.raises(OperationalError):
                await connection.execute(text(sql))
            await connection.rollback()
        assert await outcome(connection, "SELECT amount FROM items") == [(0,)] * 3


async def test_a_function_that_writes_from_a_temp_statement(doors: Doors, path: Path) -> None:
    """On a swap-in connection, the statement acquires the turn and is repeated once."""
    engine = await doors.open("swap-in", on_connect=Functions().on_connect)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TEMP TABLE scratch (id)"))
        await connection.execute(text("INSERT INTO scratch SELECT writes()"))
        assert (await driver(connection)).executor.transaction.writing.begun
        assert await outcome(connection, "SELECT id FROM scratch") == [("written",)]
    assert await amounts(engine) == [1, 1, 1]


async def test_a_function_that_swallows_its_error_in_a_temp_statement(
    doors: Doors, path: Path
) -> None:
    """Repeating it would insert twice, so an error is raised that names the way out."""
    engine = await doors.open("swap-in", on_connect=Functions().on_connect)
    insert = text("INSERT INTO scratch SELECT swallows()")
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMP TABLE scratch (id)"))
        with pytest.raises(OperationalError, match='begin with sqlite_role="writer"') as caught:
            await connection.execute(insert)
        assert isinstance(caught.value.orig, ForbiddenWriteError)
        await connection.rollback()
        assert await outcome(connection, "SELECT id FROM scratch") == []
        await connection.execute(text("BEGIN IMMEDIATE"))
        await connection.execute(insert)
        assert await outcome(connection, "SELECT id FROM scratch") == [("written",)]
        await connection.commit()
    assert await amounts(engine) == [1, 1, 1]


async def scratch_then_main(connection: AsyncConnection, path: Path) -> list[Any]:
    """Write a temp table in a deferred transaction, let another program commit, then write main."""
    found = [await outcome(connection, "CREATE TEMP TABLE IF NOT EXISTS scratch (id)")]
    await connection.commit()
    found.append(await outcome(connection, "INSERT INTO scratch SELECT id FROM items"))
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    other.execute("UPDATE items SET amount = amount + 1 WHERE id = 1")
    other.close()
    found.append(await outcome(connection, "UPDATE items SET amount = 5 WHERE id = 2"))
    await connection.rollback()
    found.append(await outcome(connection, "UPDATE items SET amount = 6 WHERE id = 3"))
    await connection.commit()
    found.append(await outcome(connection, "SELECT amount FROM items"))
    return found


async def test_a_snapshot_that_became_too_old_is_an_error_as_on_stock(
    doors: Doors, make_engine: MakeEngine, path: Path, tmp_path: Path
) -> None:
    """BUSY_SNAPSHOT is raised at once, as waiting cannot help; stock does the same."""
    engine = await doors.open("swap-in")
    other = tmp_path / "stock.db"
    stock = stock_engine(make_engine, other)
    await create_items(stock)
    found = []
    for one, file in ((stock, other), (engine, path)):
        async with one.connect() as connection:
            found.append(await scratch_then_main(connection, file))
    assert found[0] == found[1]
    assert found[0][2] == "database is locked"
    assert found[0][4] == [(1,), (0,), (6,)]

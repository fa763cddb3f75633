"""A program creates its tables and does not commit, which the stock driver does by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from .doors import Door
from .parameters import first
from .rebuilding import begin_of_sqlite

UNDONE = "was rolled back with its transaction: here it is part of the transaction"


_UNDOES = {
    "CREATE TABLE item (i)": "SELECT count(*) FROM pragma_table_info('item')",
    "PRAGMA user_version = 7": "PRAGMA user_version",
    "ALTER TABLE old RENAME TO item": "SELECT count(*) FROM pragma_table_info('item')",
    "CREATE INDEX old_i ON old (i)": "SELECT count(*) FROM pragma_index_info('old_i')",
    "CREATE VIEW item AS SELECT 1": "SELECT count(*) FROM pragma_table_info('item')",
}


@pytest.mark.parametrize("sql", first(2, _UNDOES))
async def test_it_is_told(changing: Door, sql: str, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names it and the way out, once per engine; if it is kept, there is none."""
    app = await changing.open()
    await app.write("CREATE TABLE old (i)")
    async with app.writer.connect() as connection:
        await connection.execute(text(sql))
    kept = bool(await app.value(_UNDOES[sql]))
    assert caplog.text.count(UNDONE) == (not kept)
    if kept:
        return
    assert " ".join(sql.split()[:2]) in caplog.text
    assert "engine.begin()" in caplog.text
    async with app.writer.connect() as connection:
        await connection.execute(text(sql))
    assert caplog.text.count(UNDONE) == 1


@pytest.mark.parametrize(
    "before", ["BEGIN", "BEGIN IMMEDIATE", "INSERT INTO old VALUES (1)", "UPDATE old SET i = 1"]
)
async def test_where_stock_rolls_it_back_too(
    changing: Door, before: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in a transaction there as well, so there is no warning until it would not be."""
    app = await changing.open()
    await app.write("CREATE TABLE old (i)")
    sql = "CREATE TABLE item (i)"
    async with app.writer.connect() as connection:
        await connection.execute(text(before))
        await connection.execute(text(sql))
    assert not await app.value(_UNDOES[sql])
    assert UNDONE not in caplog.text
    async with app.writer.connect() as connection:
        await connection.execute(text(sql))
        await connection.execute(text("INSERT INTO item VALUES (1)"))
    assert caplog.text.count(UNDONE) == (not await app.value(_UNDOES[sql]))


async def test_in_a_savepoint_of_autocommit(
    changing: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """SAVEPOINT begins SQLite's transaction there, and ROLLBACK TO leaves it open, as on stock."""
    app = await changing.open()
    engine = app.writer.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await (await connection.begin_nested()).rollback()
        await connection.execute(text("PRAGMA user_version = 7"))
    assert await app.value("PRAGMA user_version") == 0
    assert UNDONE not in caplog.text


async def test_after_a_savepoint(changing: Door, caplog: pytest.LogCaptureFixture) -> None:
    """On stock, the RELEASE has ended the transaction, and what follows is committed at once."""
    app = await changing.open()
    async with app.writer.connect() as connection:
        await (await connection.begin_nested()).commit()
        await connection.execute(text("PRAGMA user_version = 7"))
    kept = bool(await app.value("PRAGMA user_version"))
    assert caplog.text.count(UNDONE) == (not kept)


def _begin_nothing(connection: Any, _record: object) -> None:
    connection.isolation_level = None


@pytest.mark.parametrize("whole", [True, False])
async def test_the_recipe_of_sqlalchemy_begins(
    changing: Door, whole: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Tables of tests are in a transaction of SQLAlchemy's recipe that is never committed."""

    def listen(engine: AsyncEngine) -> None:
        begin_of_sqlite(engine)
        if whole:
            event.listen(engine.sync_engine, "connect", _begin_nothing)

    app = await changing.open(listen=listen)
    async with app.writer.connect() as connection:
        await connection.execute(text("CREATE TABLE item (i)"))
        nested = await connection.begin_nested()
        await connection.execute(text("INSERT INTO item VALUES (1)"))
        await nested.rollback()
    assert not await app.value(_UNDOES["CREATE TABLE item (i)"])
    assert UNDONE not in caplog.text


@pytest.mark.parametrize(
    "columns", ["i TEXT PRIMARY KEY", "i UNIQUE, j UNIQUE", "i INTEGER PRIMARY KEY AUTOINCREMENT"]
)
@pytest.mark.parametrize("verb", ["CREATE", "DROP"])
async def test_the_table_is_named(
    door: Door, verb: str, columns: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite's implicit objects are not: the indexes of its keys, and its sequences."""
    app = await door.open()
    if verb == "DROP":
        await app.write(f"CREATE TABLE item ({columns})")
    async with app.writer.connect() as connection:
        ddl = f"CREATE TABLE item ({columns})" if verb == "CREATE" else "DROP TABLE item"
        await connection.execute(text(ddl))
    assert (f"{verb} TABLE item on " in caplog.text) == (not door.stock)


@pytest.mark.parametrize(
    "sql",
    first(
        2,
        [
            "CREATE TABLE IF NOT EXISTS old (i)",
            "INSERT INTO old VALUES (1)",
            "CREATE TEMP TABLE item (i)",
            "PRAGMA user_version = 0",
            "DROP TABLE IF EXISTS item",
        ],
    ),
)
async def test_what_changes_no_schema(
    changing: Door, sql: str, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no warning."""
    app = await changing.open()
    await app.write("CREATE TABLE old (i)")
    async with app.writer.connect() as connection:
        await connection.execute(text(sql))
    async with app.writer.begin() as connection:
        await connection.execute(text("CREATE TABLE kept (i)"))
    async with app.writer.connect() as connection:
        await connection.execute(text("INSERT INTO kept VALUES (1)"))
    assert UNDONE not in caplog.text


async def test_a_commit_that_is_refused(changing: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Its error is sufficient."""
    app = await changing.open()
    await app.write(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    async with app.writer.connect() as connection:
        await connection.execute(text("PRAGMA foreign_keys = ON"))
        await connection.execute(text("INSERT INTO child VALUES (7)"))
        await connection.execute(text("CREATE TABLE item (i)"))
        with pytest.raises(IntegrityError):
            await connection.commit()
        await connection.rollback()
    assert UNDONE not in caplog.text


@pytest.mark.parametrize("sql", ["CREATE TABLE item (i)", "INSERT INTO old VALUES (1)"])
async def test_others_write_meanwhile(door: Door, sql: str) -> None:
    """A fixture creates the tables and yields within its block, and the tests write.

    On the stock driver that is no transaction. Here the time-out says so, unless it is one.
    """
    options: dict[str, Any] = {"connect_args": {"timeout": 0.05}} if door.stock else {}
    app = await door.open(own={"write_timeout": 0.05}, **options)
    await app.write("CREATE TABLE old (i)")
    async with app.writer.begin() as connection:
        await connection.execute(text(sql))
        try:
            await asyncio.create_task(app.write("INSERT INTO old VALUES (2)"))
        except OperationalError as error:
            created = sql.startswith("CREATE")
            assert not (door.stock and created)
            told = "commit it before others write" in str(error)
            assert told == (created and not door.stock)
        else:
            assert door.stock

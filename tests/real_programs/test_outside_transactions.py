"""Statements that SQLite ignores or refuses within a transaction, after reads.

The stock driver begins a transaction with the first row that is written.
"""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from tests.real_programs.rebuilding import (
    TABLES,
    enforce_on_connect,
    raw_connection,
    rebuild_parent,
)

from .doors import FACADE, STOCK, SWAP_IN, Door, is_locked
from .listeners import executing
from .parameters import first


async def test_foreign_keys_go_off_after_a_read(changing: Door) -> None:
    """A migration inspects a table, disables them, and rebuilds it: no child row is lost."""
    app = await changing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await rebuild_parent(connection)
        await connection.commit()
    assert await app.value("SELECT count(*) FROM child") == 1


async def test_they_are_on_for_the_next(writing: Door) -> None:
    """A migration enables them after its last DDL, which has begun a transaction here."""
    app = await writing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("CREATE TABLE new (id INTEGER PRIMARY KEY)"))
        await connection.execute(text("PRAGMA foreign_keys = ON"))
        await connection.commit()
    async with app.writer.connect() as connection:
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert await connection.scalar(text("SELECT count(*) FROM new")) == 0


@pytest.mark.parametrize("door", [STOCK, SWAP_IN], indirect=True)
@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN"])
async def test_migrations_switch_them_within_transactions_of_their_own(
    door: Door, begin: str
) -> None:
    """SQLite ignores that: they stay off for the next migration, and no child row is lost."""
    app = await door.open(listen=executing("PRAGMA foreign_keys = ON"))
    await app.write(*TABLES)
    async with app.writer.connect() as connection:
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        for _ in range(2):
            await connection.execute(text(begin))
            await connection.execute(text("PRAGMA foreign_keys = OFF"))
            await rebuild_parent(connection)
            await connection.execute(text("PRAGMA foreign_keys = ON"))
            await connection.execute(text("COMMIT"))
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 0
        await connection.execute(text("CREATE TABLE other (i)"))  # in a transaction of ours again
        await connection.execute(text("PRAGMA foreign_keys = ON"))
        await connection.commit()
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
    assert await app.value("SELECT count(*) FROM child") == 1


@pytest.mark.parametrize("before", ["UPDATE parent SET id = id", "CREATE TABLE other (i)"])
async def test_they_are_not_left_on_in_silence(writing: Door, before: str) -> None:
    """If the transaction has written, SQLite would ignore it: refused, and nothing is lost."""
    app = await writing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text(before))
        with pytest.raises(OperationalError, match=r"stay on: .* commit or roll back first"):
            await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("PRAGMA foreign_keys = ON"))  # unchanged
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT INTO child VALUES (99)"))
        await connection.rollback()
    async with app.enter() as connection:
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text(before))
        await connection.execute(text("PRAGMA foreign_keys = OFF"))  # unchanged
        await connection.commit()


async def test_foreign_keys_go_off_after_a_look_at_the_raw_connection(changing: Door) -> None:
    """A program has requested it, to register a function or for no reason at all."""
    app = await changing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.enter() as connection:
        await raw_connection(connection)
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("DELETE FROM parent"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM child") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM child",
        "CREATE TABLE other (i)",
        "PRAGMA user_version = 7",
    ],
)
async def test_what_the_raw_connection_wrote_is_not_committed(writing: Door, sql: str) -> None:
    """It was written in the transaction that SQLAlchemy has begun, and is rolled back with it."""
    app = await writing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.enter() as connection:
        raw = await raw_connection(connection)
        await connection.execute(text("SELECT * FROM parent"))
        await raw.execute(sql)
        with pytest.raises(OperationalError, match="stay on"):
            await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.rollback()
    assert await app.value("SELECT count(*) FROM child") == 1
    assert await app.value("SELECT count(*) FROM sqlite_master") == 2
    assert await app.value("PRAGMA user_version") == 0


@pytest.mark.parametrize("sql", ["INSERT INTO child VALUES (1)", "CREATE TABLE other (i)"])
async def test_what_a_function_wrote_is_not_committed(writing: Door, sql: str) -> None:
    """Its SELECT writes, and is rolled back with the transaction."""

    def register(connection: sqlite3.Connection) -> None:
        connection.create_function("writes", 0, lambda: connection.execute(sql).rowcount)

    app = await writing.open(listen=enforce_on_connect, on_connect=register)
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT writes()"))
        with contextlib.suppress(OperationalError):  # on a SQLitePool it is known to write
            await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.rollback()
    assert await app.value("SELECT count(*) FROM child") == 1
    assert await app.value("SELECT count(*) FROM sqlite_master") == 2


@pytest.mark.parametrize("before", ["SELECT * FROM parent", "CREATE TABLE other (i)"])
async def test_on_the_raw_connection_it_is_not_ignored(
    writing: Door, before: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite silently ignores it there, and child rows would be lost."""
    app = await writing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.writer.connect() as connection:
        await connection.execution_options(sqlite_role="writer")
        raw = await raw_connection(connection)
        await connection.execute(text(before))
        await raw.execute("PRAGMA foreign_keys = ON")  # unchanged
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            await raw.execute("PRAGMA main.foreign_keys(off)")
        await connection.rollback()
        await raw.execute("PRAGMA foreign_keys = OFF")
        await connection.execute(text(before))
        await raw.execute("PRAGMA foreign_keys = 0")  # unchanged
        await raw.execute("DELETE FROM parent")
        await connection.commit()
    assert "send the PRAGMA with connection.execute(), or after commit()" in caplog.text
    assert await app.value("SELECT count(*) FROM child") == 1


async def test_the_raw_connection_begins_one_after_sqlalchemys(writing: Door) -> None:
    """SQLite ignores it in that one, as on stock: it was committed there, and another begun."""
    app = await writing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.writer.connect() as connection:
        await connection.execution_options(sqlite_role="writer")
        raw = await raw_connection(connection)
        await connection.execute(text("SELECT * FROM parent"))
        await raw.commit()
        await raw.execute("INSERT INTO parent VALUES (2)")
        await raw.execute("PRAGMA foreign_keys = OFF")
        await raw.commit()
    assert await app.value("SELECT count(*) FROM parent") == 2


async def test_a_transaction_of_the_raw_connection_has_its_pragmas(changing: Door) -> None:
    """Within a transaction that sqlite3 has begun, SQLite ignores them, here as on stock."""
    app = await changing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.enter() as connection:
        raw = await raw_connection(connection)
        await raw.execute("INSERT INTO parent VALUES (2)")
        await raw.execute("PRAGMA foreign_keys = OFF")
        await raw.commit()
        await raw.execute("PRAGMA foreign_keys = OFF")
        await raw.execute("DELETE FROM parent")
        await raw.execute("PRAGMA foreign_keys = ON")
        await raw.commit()
    assert await app.value("SELECT count(*) FROM child") == 1


@pytest.mark.parametrize("door", [FACADE], indirect=True)
@pytest.mark.parametrize("before", ["SELECT * FROM parent", "DELETE FROM child"])
async def test_a_function_in_one_hop_cannot_switch_them_off(door: Door, before: str) -> None:
    """Its transaction begins before it, so SQLite would ignore the PRAGMA: no child row is lost."""
    app = await door.open()
    await app.write(*TABLES)

    def rebuild(connection: Connection) -> None:
        connection.execute(text(before))
        connection.execute(text("PRAGMA foreign_keys = ON"))  # unchanged
        connection.execute(text("PRAGMA foreign_keys = OFF"))
        connection.execute(text("DELETE FROM parent"))

    with pytest.raises(OperationalError, match=r"stay on: .* connection of the writer engine"):
        await app.db.run_write_core(rebuild)
    assert await app.value("SELECT count(*) FROM child") == 1


async def test_a_program_starts(changing: Door) -> None:
    """It creates its tables and then configures the connection, and the settings take effect."""
    app = await changing.open()
    async with app.enter() as connection:
        await connection.execute(text("CREATE TABLE item (i)"))
        await connection.execute(text("PRAGMA journal_mode = WAL"))
        await connection.execute(text("PRAGMA synchronous = NORMAL"))
        await connection.execute(text("PRAGMA synchronous = FULL"))
        await connection.execute(text("PRAGMA temp_store = MEMORY"))
        await connection.execute(text("PRAGMA foreign_keys = ON"))
        await connection.commit()
    async with app.writer.connect() as connection:
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert await connection.scalar(text("PRAGMA synchronous")) == 2
        assert await connection.scalar(text("SELECT count(*) FROM item")) == 0


async def test_what_it_wants_survives_a_rollback(changing: Door) -> None:
    """Settings are not part of a transaction; the last one counts."""
    app = await changing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("CREATE TABLE item (i)"))
        await connection.execute(text("PRAGMA synchronous = OFF"))
        await connection.execute(text("PRAGMA foreign_keys = ON"))
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("PRAGMA synchronous = FULL"))
        await connection.rollback()
    async with app.writer.connect() as connection:
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 0
        assert await connection.scalar(text("PRAGMA synchronous")) == 2


async def test_what_it_wants_survives_a_loss(writing: Door) -> None:
    """If SQLite ends the transaction itself, the next one has them like the engine."""
    app = await writing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.writer.connect() as connection:
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("CREATE TABLE item (i)"))
        await connection.execute(text("PRAGMA foreign_keys = ON"))
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT OR ROLLBACK INTO parent VALUES (1)"))
        await connection.rollback()
    async with app.writer.connect() as connection:
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1


@pytest.mark.parametrize("begin", first(2, ["BEGIN IMMEDIATE", "BEGIN", "BEGIN EXCLUSIVE"]))
async def test_a_begin_of_the_application(changing: Door, begin: str) -> None:
    """It begins after reads, and once; a second one is an error."""
    app = await changing.open()
    await app.write(*TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text(begin))
        with pytest.raises(OperationalError, match="within a transaction"):
            await connection.execute(text(begin))
        await connection.execute(text("INSERT INTO parent VALUES (2)"))
        await connection.execute(text("COMMIT"))
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text(begin))
        await connection.execute(text("INSERT INTO parent VALUES (3)"))
        await connection.rollback()
    assert await app.value("SELECT count(*) FROM parent") == 2
    assert not is_locked(app.path)


async def test_a_savepoint_is_not_ended(writing: Door) -> None:
    """A PRAGMA does not commit changes that would be rolled back to it."""
    app = await writing.open(listen=enforce_on_connect)
    await app.write(*TABLES)
    async with app.enter() as connection, connection.begin_nested() as savepoint:
        await connection.execute(text("DELETE FROM child"))
        with pytest.raises(OperationalError, match="stay on"):
            await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await savepoint.rollback()
        await connection.commit()
    assert await app.value("SELECT count(*) FROM child") == 1

"""Statements that SQLite ignores or refuses within a transaction, after reads.

The stock driver begins a transaction with the first row that is written.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from .doors import Door, is_locked
from .parameters import first

_TABLES = (
    "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
    "CREATE TABLE child (parent INTEGER REFERENCES parent ON DELETE CASCADE)",
    "INSERT INTO parent VALUES (1)",
    "INSERT INTO child VALUES (1)",
)


async def test_foreign_keys_go_off_after_a_read(changing: Door) -> None:
    """A migration looks at a table, switches them off, and rebuilds it: no child is lost."""
    app = await changing.open()
    await app.write(*_TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("CREATE TABLE new (id INTEGER PRIMARY KEY, name)"))
        await connection.execute(text("INSERT INTO new (id) SELECT id FROM parent"))
        await connection.execute(text("DROP TABLE parent"))
        await connection.execute(text("ALTER TABLE new RENAME TO parent"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM child") == 1


async def test_they_are_on_for_the_next(writing: Door) -> None:
    """A migration switches them on again after its last DDL, which has begun a transaction here."""
    app = await writing.open(listen=_enforce_on_connect)
    await app.write(*_TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("CREATE TABLE new (id INTEGER PRIMARY KEY)"))
        await connection.execute(text("PRAGMA foreign_keys = ON"))
        await connection.commit()
    async with app.writer.connect() as connection:
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert await connection.scalar(text("SELECT count(*) FROM new")) == 0


@pytest.mark.parametrize("before", ["UPDATE parent SET id = id", "CREATE TABLE other (i)"])
async def test_they_are_not_left_on_in_silence(writing: Door, before: str) -> None:
    """Where the transaction has written, SQLite would ignore it: refused, and nothing is lost."""
    app = await writing.open(listen=_enforce_on_connect)
    await app.write(*_TABLES)
    async with app.enter() as connection:
        await connection.execute(text(before))
        with pytest.raises(OperationalError, match=r"stay on: .* commit or roll back first"):
            await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text("PRAGMA foreign_keys = ON"))  # as they are
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT INTO child VALUES (99)"))
        await connection.rollback()
    async with app.enter() as connection:
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await connection.execute(text(before))
        await connection.execute(text("PRAGMA foreign_keys = OFF"))  # as they are
        await connection.commit()


async def test_a_savepoint_is_not_ended(writing: Door) -> None:
    """What would be rolled back to it is not committed by a PRAGMA."""
    app = await writing.open(listen=_enforce_on_connect)
    await app.write(*_TABLES)
    async with app.enter() as connection, connection.begin_nested() as savepoint:
        await connection.execute(text("DELETE FROM child"))
        with pytest.raises(OperationalError, match="stay on"):
            await connection.execute(text("PRAGMA foreign_keys = OFF"))
        await savepoint.rollback()
        await connection.commit()
    assert await app.value("SELECT count(*) FROM child") == 1


_OTHERS = [
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_mode = WAL",
    "VACUUM",
    "PRAGMA wal_checkpoint(PASSIVE)",
]


@pytest.mark.parametrize("sql", first(3, _OTHERS))
async def test_others_work_after_a_read(changing: Door, sql: str) -> None:
    """What SQLite refuses within a transaction runs as on stock after a read, and what follows."""
    app = await changing.open()
    await app.write(*_TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        await connection.execute(text(sql))
        await connection.execute(text("INSERT INTO parent VALUES (2)"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM parent") == 2
    assert not is_locked(app.path)


@pytest.mark.parametrize("sql", ["PRAGMA foreign_keys = OFF", "PRAGMA synchronous = FULL"])
async def test_the_turn_is_kept(writing: Door, sql: str) -> None:
    """A writer that has read still has SQLite's lock after it, as before."""
    app = await writing.open()
    await app.write(*_TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        assert is_locked(app.path)
        await connection.execute(text(sql))
        assert is_locked(app.path)
        await connection.rollback()
    assert not is_locked(app.path)


async def test_what_asks_ends_nothing(writing: Door) -> None:
    """A question about a setting leaves the transaction alone."""
    app = await writing.open()
    await app.write(*_TABLES)
    async with app.enter() as connection:
        await connection.execute(text("DELETE FROM child"))
        for sql in ("PRAGMA foreign_keys", "PRAGMA synchronous", "PRAGMA journal_mode"):
            await connection.execute(text(sql))
        await connection.rollback()
    assert await app.value("SELECT count(*) FROM child") == 1


async def test_a_vacuum_that_fails_leaves_the_connection_usable(writing: Door) -> None:
    """What is read and written after it is not taken for a transaction that SQLite has ended."""
    app = await writing.open()
    await app.write(*_TABLES)
    async with app.enter() as connection:
        await connection.execute(text("SELECT * FROM parent"))
        with pytest.raises(OperationalError, match="unknown database"):
            await connection.execute(text("VACUUM nowhere"))
        await connection.execute(text("INSERT INTO parent VALUES (2)"))
        await connection.commit()
    assert await app.value("SELECT count(*) FROM parent") == 2


async def test_leaving_wal_fails_at_once(changing: Door) -> None:
    """Other connections of the pools are open, which no waiting ends: said as SQLite does."""
    app = await changing.open()
    await app.write(*_TABLES)
    async with app.reader.connect() as other:
        await other.execute(text("SELECT * FROM parent"))
        async with app.enter() as connection:
            message = "" if changing.stock else ": .* only while no other connection is open"
            with pytest.raises(OperationalError, match=f"database is locked{message}"):
                await connection.execute(text("PRAGMA journal_mode = DELETE"))
            await connection.rollback()


def _enforce_on_connect(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def enforce(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON").close()

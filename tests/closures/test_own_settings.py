"""Settings that a function changes by SQL, as a session of ``db.read()`` or ``db.write()`` may."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from sa_sqlite_pool import SQLiteDatabase
from tests.helpers import driver


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another database, with a row."""
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.execute("INSERT INTO notes VALUES ('there')")
        connection.commit()
    return path


def attach(connection: Connection, path: Path) -> None:
    connection.execute(text("ATTACH :path AS other"), {"path": str(path)})


def read_attached(connection: Connection, path: Path) -> list[Any]:
    attach(connection, path)
    return list(connection.execute(text("SELECT text FROM other.notes")).scalars())


def write_attached(connection: Connection, path: Path) -> None:
    connection.execute(text("INSERT INTO other.notes VALUES ('new')"))


async def test_attached_on_a_reader(one: SQLiteDatabase, other: Path) -> None:
    """Read-only, as in db.read()."""
    assert await one.run_read_core(read_attached, other) == ["there"]
    with pytest.raises(Exception, match=r"a reader of app\.db cannot change a database: INSERT"):
        await one.run_read_core(write_attached, other)


async def test_a_reader_attaches_no_new_file(one: SQLiteDatabase, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="creates no file: let the writer attach it first"):
        await one.run_read_core(attach, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


async def test_the_busy_timeout(db: SQLiteDatabase) -> None:
    """It is remembered and answered, and SQLite itself never waits."""

    def set_and_ask(connection: Connection) -> int:
        connection.execute(text("PRAGMA busy_timeout = 1500"))
        answer: int = connection.execute(text("PRAGMA busy_timeout")).scalar_one()
        return answer

    assert await db.run_write_core(set_and_ask) == 1500
    async with db.writer_engine.connect() as connection:
        sqlite = (await driver(connection)).worker.connection
        assert sqlite.execute("PRAGMA busy_timeout").fetchone() == (0,)
        assert await connection.scalar(text("PRAGMA busy_timeout")) == 1500

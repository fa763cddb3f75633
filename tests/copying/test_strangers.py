"""Schemas with collations and functions that the application registers on its own connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Computed, Integer, MetaData, String, Table
from sqlalchemy.exc import DatabaseError

from sa_sqlite_pool import CopyError, SQLiteDatabase, restore
from tests.copying.files import copied, rows_of
from tests.postgresql import App

LOW = "s TEXT COLLATE low"
SCHEMAS = {
    "collation": f"id INTEGER PRIMARY KEY, {LOW} UNIQUE",
    "without-rowid": f"id INTEGER, {LOW} PRIMARY KEY) WITHOUT ROWID; CREATE TABLE u (id",
    "check": "id INTEGER PRIMARY KEY, s CHECK (is_fine(s))",
    "index": "id INTEGER PRIMARY KEY, s); CREATE INDEX its ON t (slug(s)",
    "partial": "id INTEGER PRIMARY KEY, s); CREATE INDEX its ON t (s) WHERE is_fine(s",
    "computed": f"id INTEGER PRIMARY KEY, {LOW}, c AS (slug(s)) NOT NULL",
}


def low(one: str, other: str) -> int:
    return (one.lower() > other.lower()) - (one.lower() < other.lower())


@contextmanager
def application(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_collation("low", low)
        connection.create_function("slug", 1, str.lower, deterministic=True)
        connection.create_function("is_fine", 1, bool, deterministic=True)
        yield connection


@pytest.fixture(params=SCHEMAS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with application(tmp_path / "app.db") as connection:
        connection.executescript(f"CREATE TABLE t ({SCHEMAS[request.param]})")
        rows = [(number, f"{'aBcD'[number % 4]}{number}") for number in range(1000)]
        connection.executemany("INSERT INTO t (id, s) VALUES (?, ?)", rows)
    return tmp_path / "app.db"


async def test_a_backup(path: Path, tmp_path: Path) -> None:
    """It is created and restored; a damaged one is still detected."""
    async with SQLiteDatabase(path) as db:
        await db.backup(tmp_path / "copy.db")
    await restore(tmp_path / "copy.db", tmp_path / "again.db")
    with application(tmp_path / "again.db") as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with open(tmp_path / "copy.db", "r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xff" * 100)
    with pytest.raises(DatabaseError, match="is damaged"):
        await restore(tmp_path / "copy.db", tmp_path / "again.db")


async def test_a_copy(app: App, path: Path) -> None:
    """The data of the file is copied, and compared by its own bytes."""
    models = MetaData()
    computed = [Column("c", String, Computed("lower(s)", persisted=True))]
    with application(path) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 't'").fetchone()
    columns: list[Column[Any]] = computed if "slug(s)) NOT" in sql else []
    id_ = Column("id", Integer, primary_key=True)
    table = Table("t", models, id_, Column("s", String, unique=True), *columns)
    assert (await copied(path, app, models)).rows == 1000
    assert (await rows_of(app, table))[:2] == [
        *((0, "a0", "a0"), (1, "B1", "b1")),
    ] or not columns
    assert app.sql("SELECT count(DISTINCT s) FROM t") == "1000"


async def test_a_column_that_only_the_application_computes(app: App, tmp_path: Path) -> None:
    """The error names the way out, because a copy cannot know the values."""
    with application(tmp_path / "app.db") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, c AS (slug('A')))")
    models = MetaData()
    Table("t", models, Column("id", Integer, primary_key=True), Column("c", String))
    with pytest.raises(CopyError, match=r"t cannot be read .*slug\(\).*Computed in the models"):
        await copied(tmp_path / "app.db", app, models, dry_run=True)

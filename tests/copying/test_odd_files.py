"""Files that SQLite allows but are rare: other keys, encodings, schemas, tables of modules."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    text,
)

from sa_sqlite_pool import CopyError, CopyReport
from tests.copying.files import copied, execute, misfits_in, rows_of
from tests.postgresql import App


async def misfits_of(path: Path, app: App, models: MetaData) -> list[tuple[str, str, list[Any]]]:
    """Return the place, the kind and the keys of the values that do not fit."""
    return [
        (group.place, group.kind, [dict(misfit.key) for misfit in group.first])
        for group in await misfits_in(path, app, models)
    ]


async def test_a_column_with_another_key(app: App, tmp_path: Path) -> None:
    """The column's name in the file is used, in quotes."""
    models = MetaData()
    order = Column("order", Integer, key="number", primary_key=True, autoincrement=False)
    table = Table("t", models, order, Column("group", String, key="kind", unique=True))
    script = 'CREATE TABLE t ("order" INTEGER PRIMARY KEY, "group"); INSERT INTO t VALUES (1, 2)'
    path = execute(tmp_path / "app.db", script)
    assert await misfits_of(path, app, models) == [("t.group", "wrong-type", [{"order": 1}])]
    execute(path, "UPDATE t SET \"group\" = 'a'")
    assert (await copied(path, app, models)).rows == 1
    assert await rows_of(app, table) == [(1, "a")]


COMPUTED = {
    "not-there": "CREATE TABLE t (id INTEGER PRIMARY KEY, s, computed)",
    "function": "CREATE TABLE t (id INTEGER PRIMARY KEY, s, computed, low AS (lowr(s)))",
}


@pytest.mark.parametrize("name", COMPUTED)
async def test_keys_that_the_server_computes(app: App, tmp_path: Path, name: str) -> None:
    """The server checks unique or referenced columns that are missing or unreadable in the file."""
    models = MetaData()
    low = Column("low", String, Computed("lower(s)", persisted=True), unique=True)
    its: Column[str] = Column("computed", ForeignKey("t.low"))
    Table("t", models, Column("id", Integer, primary_key=True), Column("s", String), low, its)
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_function("lowr", 1, str.lower, deterministic=True)
        connection.execute(COMPUTED[name])
        connection.execute("INSERT INTO t (id, s, computed) VALUES (1, 'A', 'b'), (2, 'B', 'a')")
    assert (await copied(path, app, models)).rows == 2
    assert app.sql("SELECT low FROM t ORDER BY id") == "a\nb"
    app.sql("DROP TABLE t")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.create_function("lowr", 1, str.lower, deterministic=True)
        connection.execute("UPDATE t SET s = 'a' WHERE id = 2")
    with pytest.raises(CopyError, match=r"\(low\)=\(a\) already exists"):
        await copied(path, app, models)


async def test_a_computed_key_of_the_file(app: App, tmp_path: Path) -> None:
    """It is checked if it can be read."""
    models = MetaData()
    low = Column("low", String, Computed("lower(s)", persisted=True), unique=True)
    Table("t", models, Column("id", Integer, primary_key=True), Column("s", String), low)
    path = execute(
        tmp_path / "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s, low AS (lower(s)));"
        "INSERT INTO t VALUES (1, 'A'), (2, 'a')",
    )
    assert await misfits_of(path, app, models) == [("t.low", "duplicate", [{"id": 1}, {"id": 2}])]


KEYLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "without-rowid": ("id TEXT PRIMARY KEY, s) WITHOUT ROWID", {"id": "k"}),
    "other-column": ("id, s, PRIMARY KEY (s, id)) WITHOUT ROWID", {"s": "long", "id": "k"}),
    "with-rowid": ("id TEXT PRIMARY KEY, s)", {"id": "k"}),
    "rowid": ("id, s)", {"rowid": 1}),
    "own-rowid": ("id, s, rowid TEXT)", {"_rowid_": 1}),
}


@pytest.mark.parametrize("name", KEYLESS)
async def test_models_without_a_key(app: App, tmp_path: Path, name: str) -> None:
    """Rows are identified by the key that the file has."""
    columns, key = KEYLESS[name]
    models = MetaData()
    Table("t", models, Column("id", String), Column("s", String(3), unique=True))
    path = execute(
        tmp_path / "app.db",
        f"CREATE TABLE t ({columns}; INSERT INTO t (id, s) VALUES ('k', 'long')",
    )
    assert await misfits_of(path, app, models) == [("t.s", "too-long", [key])]
    execute(path, "UPDATE t SET s = 'a'")
    assert (await copied(path, app, models)).rows == 1


async def test_a_key_that_is_not_copied(app: App, tmp_path: Path) -> None:
    """It may contain values that no server accepts, because it only identifies rows."""
    models = MetaData()
    Table("t", models, Column("s", String(3)))
    path = execute(
        tmp_path / "app.db",
        "CREATE TABLE t (k TEXT PRIMARY KEY, s); INSERT INTO t VALUES (CAST(x'ff' AS TEXT), 'a')",
    )
    assert (await copied(path, app, models)).rows == 1
    assert app.sql("SELECT s FROM t") == "a"
    execute(path, "UPDATE t SET s = 'long'")
    app.sql("DROP TABLE t")
    assert await misfits_of(path, app, models) == [("t.s", "too-long", [{"k": "\udcff"}])]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
async def test_encodings(app: App, tmp_path: Path, encoding: str) -> None:
    """Values that are equal on the server are detected in each encoding."""
    models = MetaData()
    Table("u", models, Column("id", Uuid, primary_key=True))
    Table("t", models, Column("id", Integer, primary_key=True), Column("u", ForeignKey("u.id")))
    once, again = "00000000-0000-0000-0000-00000000000a", "0000000000000000000000000000000a"
    path = execute(
        tmp_path / "app.db",
        f"PRAGMA encoding = '{encoding}'; CREATE TABLE u (id PRIMARY KEY); CREATE TABLE t (id, u);"
        f"INSERT INTO u VALUES ('{once}'); INSERT INTO t VALUES (1, '{again}')",
    )
    assert (await copied(path, app, models, dry_run=True)).rows == 2
    execute(path, f"INSERT INTO u VALUES ('{again}'); INSERT INTO t VALUES (2, '{'b' * 32}')")
    assert await misfits_of(path, app, models) == [
        ("u.id", "duplicate", [{"id": once}, {"id": again}]),
        ("t.u", "orphan", [{"id": 2}]),
    ]


def once(where: str) -> Callable[[], MetaData]:
    def make() -> MetaData:
        models = MetaData()
        index = Index("once", "s", unique=True, postgresql_where=text(where))
        Table("t", models, Column("id", Integer, primary_key=True), Column("s", String), index)
        return models

    return make


@pytest.mark.parametrize("where", ["s = 'a'::text", "s ~ 'a'", "left(s, 1) = 'a'", "s = 'a'"])
async def test_a_condition_in_the_language_of_postgresql(
    app: App, tmp_path: Path, where: str
) -> None:
    """The server checks it and names duplicates; a condition that SQLite knows is checked here."""
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY, s); INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    path = execute(tmp_path / "app.db", script)
    models = once(where)()
    assert (await copied(path, app, models, dry_run=True)).rows == 2
    execute(path, "UPDATE t SET s = 'a'")
    if where == "s = 'a'":
        assert await misfits_of(path, app, models) == [("t.s", "duplicate", [{"id": 1}, {"id": 2}])]
    else:
        with pytest.raises(CopyError, match=r"index once of t failed, .*\(s\)=\(a\) is duplicated"):
            await copied(path, app, models)


async def warned(path: Path, app: App, models: MetaData) -> CopyReport:
    return await copied(path, app, models, dry_run=True)


async def test_a_schema(app: App, tmp_path: Path) -> None:
    """A warning says that the file's own table is copied: the application may read another one."""
    app.sql("CREATE SCHEMA app")
    models = MetaData()
    Table("t", models, Column("id", Integer, primary_key=True), schema="app")
    path = execute(
        tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)"
    )
    report = await warned(path, app, models)
    (warning,) = report.warnings
    assert warning.endswith("(ATTACH); these are copied from the file itself: app.t from t")
    app.sql("CREATE SCHEMA main")
    for schema in (None, "main"):  # SQLite's own name for the file
        its = MetaData()
        Table("t", its, Column("id", Integer, primary_key=True), schema=schema)
        assert (await warned(path, app, its)).warnings == []


async def test_a_table_of_a_module(app: App, tmp_path: Path) -> None:
    """SQLite's internal tables for FTS5 cause no warning; other tables that the models lack do."""
    models = MetaData()
    table = Table("notes", models, Column("body", String))
    path = execute(
        tmp_path / "app.db",
        "CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('a');"
        "CREATE TABLE other (id)",
    )
    report = await copied(path, app, models)
    assert report.warnings == ["tables that the models do not name are not copied: other"]
    assert app.sql(f"SELECT body FROM {table.name}") == "a"

"""Models without DDL in SQLAlchemy for PostgreSQL are listed with the column or the index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Column, Enum, Index, Integer, MetaData, String, Table

from sa_sqlite_pool import CopyError
from tests.copying.files import (
    copied,
    execute,
    make_file,
    misfits_in,
    rows_in,
    rows_of,
    tables_on,
)
from tests.postgresql import App

LONG = "long" * 20
TOO_LONG = f"Identifier '{LONG}' exceeds maximum length of 63 characters: give it a shorter name"

# The additions of the models to a table "t" with an id, the place in the report, and its end.
REFUSED: dict[str, tuple[Callable[[], list[Any]], str, str]] = {
    "enum": (
        lambda: [Column("s", Enum("a", "b"))],
        *("t.s", "type requires a name: Enum(..., name=…)"),
    ),
    "no-type": (lambda: [Column("s")], "t.s", "NullType(): it has no type: give it one"),
    "index": (lambda: [Column("s", String), Index(LONG, "s")], f"t.{LONG}", TOO_LONG),
    "constraint": (
        lambda: [Column("s", String), CheckConstraint("s <> ''", name=LONG)],
        *("t", TOO_LONG),
    ),
    "concurrently": (
        lambda: [Column("s", String), Index("its", "s", postgresql_concurrently=True)],
        *("t.its", "leave postgresql_concurrently out of the models: a copy is one transaction"),
    ),
}


async def refused(app: App, path: Path, models: MetaData) -> list[tuple[str, str, str]]:
    found = await misfits_in(path, app, models)
    return [(group.place, group.kind, str(one)) for group in found for one in group.first]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    there = MetaData()
    for name in ("t", LONG):
        id_ = Column("id", Integer, primary_key=True)
        Table(name, there, id_, Column("s", String))
    rows = {there.tables["t"]: [{"id": 1, "s": "a"}]}
    return make_file(tmp_path / "app.db", there, rows)


@pytest.mark.parametrize("name", REFUSED)
async def test_what_has_no_ddl(app: App, path: Path, name: str) -> None:
    """No further errors are reported for it, not even if the table exists."""
    make, place, end = REFUSED[name]
    models = MetaData()
    Table("t", models, Column("id", Integer, primary_key=True), *make())
    ((found, kind, why),) = await refused(app, path, models)
    assert (found, kind) == (place, "schema")
    assert why.endswith(end)
    assert tables_on(app) == ""
    if name in {"enum", "no-type"}:
        app.sql("CREATE TABLE t (id INT PRIMARY KEY, s VARCHAR)")
        ((found, _, _),) = await refused(app, path, models)
        assert found == place


async def test_the_name_of_a_table(app: App, path: Path) -> None:
    """It is listed, as are errors elsewhere."""
    models = MetaData()
    Table(LONG, models, Column("id", Integer, primary_key=True))
    Table("t", models, Column("id", Integer, primary_key=True), Column("s"))
    found = await refused(app, path, models)
    assert [place for place, _, _ in found] == ["t.s", LONG]
    assert found[1][2].endswith(TOO_LONG)


async def test_names_that_are_as_long_as_they_may_be(app: App, path: Path) -> None:
    """They are accepted, as are names that SQLAlchemy itself shortens."""
    models = MetaData(naming_convention={"ix": f"%(table_name)s_{LONG}_%(column_0_name)s"})
    column: Column[str] = Column("s", Enum("a", name="e" * 63), index=True)
    check = CheckConstraint("id > 0", name="c" * 63)
    Table("t", models, Column("id", Integer, primary_key=True), column, check)
    assert (await copied(path, app, models)).rows == 1


# 46 characters in 88 bytes, of which PostgreSQL keeps 63.
CYRILLIC = "идентификатор_записи_в_таблице_идентификаторов"


@pytest.mark.parametrize("there", [False, True], ids=["missing", "there"])
async def test_names_of_more_bytes_than_the_server_keeps(
    app: App, tmp_path: Path, there: bool
) -> None:
    """SQLAlchemy counts characters: their columns are found there, and their sequences set."""
    models = MetaData()
    key = Column(CYRILLIC, Integer, primary_key=True)
    table = Table("t", models, key, Column("s", String))
    path = make_file(tmp_path / "app.db", models, {table: [{CYRILLIC: 7, "s": "a"}]})
    if there:
        app.sql(f'CREATE TABLE t ("{CYRILLIC}" SERIAL PRIMARY KEY, s VARCHAR)')
    await copied(path, app, models)
    assert await rows_of(app, table) == [(7, "a")]
    assert app.sql(f"INSERT INTO t (s) VALUES ('b') RETURNING {CYRILLIC}") == "8"


async def test_names_that_differ_by_case(app: App, tmp_path: Path) -> None:
    """SQLite ignores case only for ASCII letters: no other column is read instead."""
    path = execute(
        tmp_path / "app.db",
        'CREATE TABLE T (id INTEGER PRIMARY KEY, "É" TEXT UNIQUE, Name TEXT);'
        "INSERT INTO t VALUES (1, 'a', 'b')",
    )
    for names in (("é", "name"), ("É", "Ñame")):
        models = MetaData()
        columns = [Column(name, String) for name in names]
        Table("t", models, Column("ID", Integer, primary_key=True), *columns)
        with pytest.raises(CopyError, match=r"columns of t are missing in the file: (é|Ñame);"):
            await copied(path, app, models, dry_run=True)
    models = MetaData()
    columns = [Column("É", String, unique=True), Column("name", String)]
    table = Table("t", models, Column("ID", Integer, primary_key=True), *columns)
    await copied(path, app, models)
    assert await rows_of(app, table) == rows_in(path, table) == [(1, "a", "b")]

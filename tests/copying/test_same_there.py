"""Key values that differ on SQLite but are equal on PostgreSQL are found by the check."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
    Uuid,
)
from sqlalchemy.dialects import postgresql

from tests.copying.everything import Utc
from tests.copying.files import copied, execute, misfits_in
from tests.postgresql import App

JSONB = postgresql.JSONB()
PLAIN, HYPHENS = "000000000000000000000000000000ab", "00000000-0000-0000-0000-0000000000AB"

# For each type, values in SQL that are equal there, and one that differs from them.
SAME: dict[str, tuple[Any, list[str], str]] = {
    "uuid": (Uuid(), [f"'{PLAIN}'", f"'{HYPHENS}'", f"'{PLAIN.upper()}'"], f"'{'1' * 32}'"),
    "datetime": (
        *(DateTime(), ["'2024-01-02 03:04:05'", "'2024-01-02 03:04:05.000000'"]),
        "'2024-01-02 03:04:05.000001'",
    ),
    "zoned": (
        *(Utc(), ["'2024-01-02 03:04:05'", "'2024-01-02 03:04:05.000000'"]),
        "'2024-01-02 03:04:05.000001'",
    ),
    "date": (Date(), ["'2024-01-02'"], "'2024-01-03'"),
    "time": (Time(), ["'03:04:05'", "'03:04:05.000000'"], "'03:04:06'"),
    "char": (CHAR(5), ["'1'", "'1 '"], "' 1'"),
    "numeric": (Numeric(6, 2), ["0.3", "0.1 + 0.2"], "0.31"),
    "json": (JSONB, ["'{\"a\": 1}'", "'{\"a\":1.0}'"], '\'{"a": "1"}\''),
}


def file_of(tmp_path: Path, values: list[str], affinity: str = "") -> Path:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {affinity} UNIQUE, s)")
        for number, value in enumerate(values, 1):
            connection.execute(f"INSERT INTO t VALUES ({number}, {value}, NULL)")
        # This column is not compared, so it prevents nothing.
        connection.execute("UPDATE t SET s = 'x'")
    return tmp_path / "app.db"


def models_of(type_: Any) -> MetaData:
    models = MetaData()
    columns = [Column("id", Integer, primary_key=True), Column("v", type_, unique=True)]
    Table("t", models, *columns, Column("s", String))
    return models


@pytest.mark.parametrize("name", [name for name in SAME if name != "date"])
async def test_duplicates(app: App, tmp_path: Path, name: str) -> None:
    """All of them are listed, although they are unique in the file."""
    type_, same, other = SAME[name]
    path = file_of(tmp_path, [*same, other, "NULL", "NULL"])
    (group,) = await misfits_in(path, app, models_of(type_))
    assert (group.place, group.kind) == ("t.v", "duplicate")
    assert [one.key["id"] for one in group.first] == list(range(1, len(same) + 1))


@pytest.mark.parametrize("name", SAME)
async def test_what_differs_there_too(app: App, tmp_path: Path, name: str) -> None:
    """Different values are copied, in the form that SQLAlchemy writes, or in another one."""
    type_, same, other = SAME[name]
    path = file_of(tmp_path, [same[-1], other, "NULL", "NULL"])
    assert (await copied(path, app, models_of(type_))).rows == 4


async def test_beside_what_does_not_fit(app: App, tmp_path: Path) -> None:
    """A value that cannot be sent is listed as such, and the others are still compared."""
    values = [f"'{PLAIN}'", f"'{HYPHENS}'", "CAST(x'ff41' AS TEXT)", "'xyz'", "5", "x'00'"]
    path = file_of(tmp_path, values)
    misfits = await misfits_in(path, app, models_of(Uuid()))
    found = {group.kind: [one.key["id"] for one in group.first] for group in misfits}
    assert found == {"unreadable": [3, 4], "wrong-type": [5, 6], "duplicate": [1, 2]}


family = MetaData()
parents = Table("parents", family, Column("id", Uuid, primary_key=True))
Table(
    "children",
    family,
    Column("id", Integer, primary_key=True),
    Column("parent_id", ForeignKey("parents.id")),
)


@pytest.mark.parametrize(("parent", "child"), [(PLAIN, HYPHENS), (HYPHENS, PLAIN)])
async def test_a_parent_in_another_form(app: App, tmp_path: Path, parent: str, child: str) -> None:
    """It counts as the parent; a missing parent is still reported."""
    path = tmp_path / "app.db"
    script = (
        "CREATE TABLE parents (id PRIMARY KEY);"
        "CREATE TABLE children (id INTEGER PRIMARY KEY, parent_id);"
        f"INSERT INTO parents VALUES ('{parent}'), ('{'2' * 32}');"
        f"INSERT INTO children VALUES (1, '{child}'), (2, NULL);"
    )
    execute(path, script)
    assert (await copied(path, app, family)).rows == 4
    app.sql("DROP TABLE children, parents")
    execute(path, f"INSERT INTO children VALUES (3, '{'1' * 32}')")
    (group,) = await misfits_in(path, app, family, dry_run=False)
    assert (group.place, group.kind) == ("children.parent_id", "orphan")
    assert [one.key["id"] for one in group.first] == [3]

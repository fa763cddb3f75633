"""Models that PostgreSQL does not accept are all listed, with the server's errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Time,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import CopyError, MisfitsError, SQLiteDatabase, copy_to
from tests.copying.files import copied, execute, misfits_in, tables_on
from tests.postgresql import App

# The additions of the models to a table "t" with an id, the place in the report, and the error.
REFUSED: dict[str, tuple[Callable[[], list[Any]], str, str]] = {
    "boolean-default": (
        lambda: [Column("s", Boolean, server_default=text("1"))],
        *("", 'column "s" is of type boolean but default expression is of type integer'),
    ),
    "function": (
        lambda: [Column("s", String, server_default=text("(datetime('now'))"))],
        *("", "s VARCHAR DEFAULT (datetime('now')): function datetime(unknown) does not exist"),
    ),
    "glob": (
        lambda: [Column("s", String), CheckConstraint("s GLOB '*'")],
        *("", "CHECK (s GLOB '*'): syntax error at or near \"GLOB\""),
    ),
    "boolean-check": (
        lambda: [Column("s", Boolean), CheckConstraint("s IN (0, 1)")],
        *("", "CHECK (s IN (0, 1)): operator does not exist: boolean = integer"),
    ),
    "foreign-key": (
        lambda: [Column("s", String, ForeignKey("t.id"))],
        *("", 'cannot be implemented: Key columns "s" and "id" are of incompatible types'),
    ),
    "unique-json": (
        lambda: [Column("s", JSON, unique=True)],
        *("", "data type json has no default operator class"),
    ),
    "index": (
        lambda: [Column("s", JSON), Index("its", "s")],
        *("its", "CREATE INDEX its ON t (s): data type json has no default operator class"),
    ),
}


def models_of(columns: list[Any], schema: str | None = None) -> MetaData:
    models = MetaData(schema=schema)
    Table("t", models, Column("id", Integer, primary_key=True), *columns)
    return models


def file_of(tmp_path: Path, *statements: str) -> Path:
    script = "; ".join(statements) or "CREATE TABLE t (id INTEGER PRIMARY KEY, s)"
    return execute(tmp_path / "app.db", script)


async def refused(
    path: Path, app: App, models: MetaData, *, dry_run: bool = True
) -> list[tuple[str, str, str]]:
    """Return the place and the text of everything in the models that is refused."""
    before = tables_on(app)
    found = await misfits_in(path, app, models, dry_run=dry_run)
    assert tables_on(app) == before
    assert {group.kind for group in found} <= {"schema"}
    return [(group.table, group.column, str(one)) for group in found for one in group.first]


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry", "copy"])
@pytest.mark.parametrize("name", REFUSED)
async def test_what_the_server_refuses(app: App, tmp_path: Path, name: str, dry_run: bool) -> None:
    """The report names the table, index and line of the statement, in the server's own words."""
    make, place, reason = REFUSED[name]
    path, models = file_of(tmp_path), models_of(make())
    ((table, where, why),) = await refused(path, app, models, dry_run=dry_run)
    assert (table, where) == ("t", place)
    assert reason in why


async def test_a_schema_that_is_not_there(app: App, tmp_path: Path) -> None:
    """The report contains the statement that creates it."""
    models = models_of([Column("s", String)], schema="mine")
    ((table, _, why),) = await refused(file_of(tmp_path), app, models)
    assert table == "mine.t"
    assert 'schema "mine" does not exist; create the schema first: CREATE SCHEMA' in why
    app.sql("CREATE SCHEMA mine")
    assert (await copied(tmp_path / "app.db", app, models, dry_run=True)).rows == 0


async def test_a_parent_that_is_not_there(app: App, tmp_path: Path) -> None:
    """Its models were not imported, as the error says."""
    models = models_of([Column("s", ForeignKey("elsewhere.id"))])
    with pytest.raises(CopyError, match=r"could not find table 'elsewhere'.*: import the models"):
        await copied(file_of(tmp_path), app, models, dry_run=True)


async def test_all_are_named_at_once(app: App, tmp_path: Path) -> None:
    """This includes several tables, types that they share, and values; nothing is listed twice."""
    models = MetaData()
    colour = Enum("red", name="colour", metadata=models)
    added: dict[str, list[Any]] = {
        "a": [Column("s", Boolean, server_default=text("1")), Column("c", colour)],
        "b": [Column("a_id", ForeignKey("a.id")), Column("c", colour)],
        "c": [Column("j", JSON), Index("of_j", "j"), Index("of_id", "id")],
    }
    for name, columns in added.items():
        Table(name, models, Column("id", Integer, primary_key=True), *columns)
    path = file_of(
        tmp_path,
        "CREATE TABLE a (id INTEGER PRIMARY KEY, s, c)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a_id, c)",
        "CREATE TABLE c (id INTEGER PRIMARY KEY, j)",
        "INSERT INTO c VALUES (1, 'no JSON')",
    )
    with pytest.raises(MisfitsError, match=r"fit: 1, parts of .* not accept: 2;") as caught:
        await copied(path, app, models, dry_run=True)
    found = [(group.place, group.kind) for group in caught.value.report.misfits]
    assert found == [("a", "schema"), ("c.of_j", "schema"), ("c.j", "json")]
    assert tables_on(app) == ""


async def test_a_type_of_two_tables_of_which_one_is_refused(app: App, tmp_path: Path) -> None:
    """The type is rolled back with one table, and created for the other, which is accepted."""
    models = models_of([Column("s", Boolean, server_default=text("1")), Column("c", colour())])
    Table("u", models, Column("id", Integer, primary_key=True), Column("c", colour()))
    tables = ("CREATE TABLE t (id INTEGER PRIMARY KEY, s, c)", "CREATE TABLE u (id INTEGER, c)")
    ((table, _, _),) = await refused(file_of(tmp_path, *tables), app, models)
    assert table == "t"


def colour() -> Enum:
    return Enum("red", name="colour")


@pytest.mark.parametrize("wrong", ["t", "u"])
async def test_a_circle_of_which_one_is_refused(app: App, tmp_path: Path, wrong: str) -> None:
    """The keys of both are added at the end; keys of or to a table that is refused are skipped."""
    models = MetaData()
    for name, other in (("t", "u"), ("u", "t")):
        key = ForeignKey(f"{other}.id", name=f"to_{other}", use_alter=True)
        default = text("1") if name == wrong else None
        flag = Column("s", Boolean, server_default=default)
        Table(name, models, Column("id", Integer, primary_key=True), Column("o", key), flag)
    tables = [f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, o, s)" for name in "tu"]
    ((table, where, _),) = await refused(file_of(tmp_path, *tables), app, models)
    assert (table, where) == (wrong, "")


# The table on the server, and the report on its column; the models have NAMES.
NAMES = "id INTEGER PRIMARY KEY, small SMALLINT, clock TIME, name VARCHAR(20), price NUMERIC(10, 2)"
DIFFERENT = {
    "small SMALLINT": {
        "small TEXT": "text on the server: smallint in the models",
        "other SMALLINT": "no such column on the server: add it there, or drop the table",
        "small SMALLINT GENERATED ALWAYS AS (id) STORED": "computed on the server: the models say",
        "small SMALLINT, extra TEXT NOT NULL": "NOT NULL without a default on the server: the mod",
    },
    "clock TIME": {"clock TEXT": "text on the server: time without time zone in the models"},
    "name VARCHAR(20)": {
        "name VARCHAR(19)": "character varying(19) on the server: character varying(20) in",
        "name CHAR(20)": "character(20) on the server: ",
    },
    "price NUMERIC(10, 2)": {"price NUMERIC(10, 3)": "numeric(10,3) on the server: numeric(10,2)"},
}
ALIKE = {
    "small SMALLINT": [
        "small BIGINT",
        "small whole",
        "small SMALLINT, extra TEXT NOT NULL DEFAULT ''",
    ],
    "name VARCHAR(20)": ["name TEXT", "name VARCHAR", "name VARCHAR(21)"],
    "price NUMERIC(10, 2)": ["price NUMERIC", "price NUMERIC(12, 2)"],
    "clock TIME": ["clock TIME(6)"],
}
there = MetaData()
names = Table(
    "t",
    there,
    Column("id", Integer, primary_key=True),
    Column("small", SmallInteger),
    Column("clock", Time),
    Column("name", String(20)),
    Column("price", Numeric(10, 2)),
)


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry", "copy"])
async def test_a_table_that_is_another(app: App, tmp_path: Path, dry_run: bool) -> None:
    """Names, types, and columns that the copy would leave empty are listed; nothing changes."""
    path = file_of(tmp_path, f"CREATE TABLE t ({NAMES})")
    for column, others in DIFFERENT.items():
        for other, reason in others.items():
            app.sql(f"DROP TABLE IF EXISTS t; CREATE TABLE t ({NAMES.replace(column, other)})")
            ((table, _, why),) = await refused(path, app, there, dry_run=dry_run)
            assert table == "t"
            assert why.startswith(reason)


async def test_a_table_that_takes_more(app: App, tmp_path: Path) -> None:
    """It is used, because PostgreSQL stores the same values in it."""
    path = file_of(tmp_path, f"CREATE TABLE t ({NAMES})")
    execute(path, "INSERT INTO t VALUES (1, 2, '03:04:05', 'x', 1.5)")
    app.sql("CREATE DOMAIN whole AS SMALLINT")
    for column, others in ALIKE.items():
        for other in others:
            app.sql(f"DROP TABLE IF EXISTS t; CREATE TABLE t ({NAMES.replace(column, other)})")
            report = await copied(path, app, there)
            assert (report.rows, report.warnings) == (1, [])


async def test_a_column_that_takes_no_null_there(app: App, tmp_path: Path) -> None:
    """Rows with NULL are listed, as if the models had the constraint."""
    path = file_of(tmp_path, f"CREATE TABLE t ({NAMES})")
    execute(path, "INSERT INTO t (id, small) VALUES (1, 1), (2, NULL)")
    app.sql(f"CREATE TABLE t ({NAMES}); ALTER TABLE t ALTER small SET NOT NULL")
    (group,) = await misfits_in(path, app, there)
    assert (group.place, group.kind, group.first[0].key) == ("t.small", "null", {"id": 2})


async def test_without_the_right_to_compare(app: App, tmp_path: Path) -> None:
    """A role that may only read the tables gets a dry run without their types, and a warning."""
    path = file_of(tmp_path, f"CREATE TABLE t ({NAMES})")
    role = f"reads_{app.database}"
    app.sql(f"CREATE TABLE t ({NAMES}); CREATE ROLE {role} LOGIN; GRANT SELECT ON t TO {role}")
    app.sql(f"REVOKE TEMPORARY ON DATABASE {app.database} FROM PUBLIC")
    engine = create_async_engine(app.url().set(username=role))
    try:
        async with SQLiteDatabase(path) as db:
            report = await copy_to(db, engine, there, dry_run=True)
            assert "GRANT TEMPORARY ON DATABASE" in report.warnings[0]
            app.sql("DROP TABLE t")
            with pytest.raises(CopyError, match=r"permission denied for schema public.*; .*GRANT"):
                await copy_to(db, engine, there, dry_run=True)
    finally:
        await engine.dispose()
        app.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_row_that_an_index_cannot_have(app: App, tmp_path: Path) -> None:
    """Only the rows show it: the error names the index and its table."""
    path = file_of(
        tmp_path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s)",
        "INSERT INTO t VALUES (1, hex(randomblob(9000)))",
    )
    models = models_of([Column("s", String, index=True)])
    with pytest.raises(CopyError, match=r"creating the index ix_t_s of t failed, .*: index row"):
        await copied(path, app, models)


async def test_duplicates_by_an_expression(app: App, tmp_path: Path) -> None:
    """PostgreSQL finds them: the error names the value, the index and the table."""
    path = file_of(
        tmp_path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s)",
        "INSERT INTO t VALUES (1, 'A'), (2, 'a')",
    )
    models = models_of([Column("s", String), Index("once", text("lower(s)"), unique=True)])
    wanted = (
        r"creating the index once of t failed, .*: Key \(lower\(s::text\)\)=\(a\) is duplicated"
    )
    with pytest.raises(CopyError, match=wanted) as caught:
        await copied(path, app, models)
    assert isinstance(caught.value.__cause__, IntegrityError)

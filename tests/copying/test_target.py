"""The tables on the server are those that the application would have created, and complete."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import (
    DDL,
    Column,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    event,
    func,
    insert,
    inspect,
    select,
)

from sa_sqlite_pool import CopyError, SQLiteDatabase, copy_to
from sa_sqlite_pool.copying.tables import wanted_tables
from tests.copying.files import copied, engine_of, execute, make_file, rows_in, rows_of, tables_on
from tests.copying.shapes import (
    LATER,
    ROWS,
    empty,
    kept,
    metadata,
    odd_children,
    people,
    teams,
)
from tests.postgresql import App

SCHEMA = """
SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable || ' '
    || coalesce(column_default, '') || coalesce(identity_generation, '')
FROM information_schema.columns WHERE table_schema = 'public'
ORDER BY 1
"""


async def create_all(app: App) -> None:
    async with engine_of(app) as engine, engine.begin() as connection:
        await connection.run_sync(metadata.create_all)


def file_of(tmp_path: Path) -> Path:
    return make_file(tmp_path / "app.db", metadata, ROWS, *LATER)


async def test_the_rows(app: App, tmp_path: Path) -> None:
    """This includes circles, self-references, composite keys, odd names and empty tables."""
    path = file_of(tmp_path)
    await copied(path, app, metadata)
    for table in metadata.tables.values():
        assert await rows_of(app, table) == rows_in(path, table)


@pytest.mark.parametrize("first", [False, True], ids=["missing", "there"])
async def test_the_schema_is_that_of_create_all(app: App, tmp_path: Path, first: bool) -> None:
    """Constraints, indexes and defaults are equal, whether the copy creates the tables or not."""
    if first:
        await create_all(app)
    await copied(file_of(tmp_path), app, metadata)
    schema = app.sql(SCHEMA)
    async with engine_of(app) as engine, engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    assert "ix_people_age" in schema
    assert "led_by FOREIGN KEY" in schema
    assert schema == app.sql(SCHEMA)


async def test_new_rows_get_new_ids(app: App, tmp_path: Path) -> None:
    """SERIAL, Identity and Sequence continue after the file's ids, even AUTOINCREMENT's mark."""
    await copied(file_of(tmp_path), app, metadata)
    async with engine_of(app) as engine, engine.begin() as connection:

        async def new(table: Table, **values: object) -> int:
            statement = insert(table).values(**values)
            key = (await connection.execute(statement)).inserted_primary_key
            assert key is not None
            return int(key[0])

        assert await new(teams, name="c") == 6
        assert await new(people, team_id=1) == 4
        assert await new(odd_children) == 11
        assert await new(kept) == 71
        assert await new(empty) == 1


async def test_tables_with_rows_are_refused(app: App, tmp_path: Path) -> None:
    """A copy does not add to existing rows: the error names the tables and the way out."""
    await create_all(app)
    app.sql("INSERT INTO teams VALUES (1, 'here')")
    with pytest.raises(CopyError, match=r"already have rows on the server: teams; .* use a new"):
        await copied(file_of(tmp_path), app, metadata)
    assert app.sql("SELECT count(*) FROM people") == "0"
    assert "led_by" in app.sql(SCHEMA)


async def test_a_dry_run_copies_nothing(app: App, tmp_path: Path) -> None:
    """It checks the file, and reports what would be copied."""
    report = await copied(file_of(tmp_path), app, metadata, dry_run=True)
    assert report.dry_run
    assert {table.name: table.rows for table in report.tables} == {
        table.name: len(rows) - (table is kept) for table, rows in ROWS.items()
    }
    assert tables_on(app) == ""


async def test_what_is_missing_in_the_file(app: App, tmp_path: Path) -> None:
    """The error names a table or a column of the models that is missing."""
    path = make_file(tmp_path / "app.db", metadata, {}, "DROP TABLE kept")
    with pytest.raises(CopyError, match=r"tables of the models are missing in the file: kept"):
        await copied(path, app, metadata)
    drop = 'ALTER TABLE "Select" DROP COLUMN "colon:ed"'
    path = make_file(tmp_path / "other.db", metadata, {}, drop)
    with pytest.raises(CopyError, match=r"columns of Select are missing in the file: colon:ed"):
        await copied(path, app, metadata)


CIRCLE = """
CREATE TABLE a (id INTEGER PRIMARY KEY, b_id INTEGER REFERENCES b (id));
CREATE TABLE b (id INTEGER PRIMARY KEY, a_id INTEGER REFERENCES a (id));
INSERT INTO a VALUES (1, 2);
INSERT INTO b VALUES (2, 1);
"""


async def test_a_circle_without_names(app: App, tmp_path: Path) -> None:
    """Its foreign keys are not marked in any way; no order of the tables satisfies them."""
    models = MetaData()
    a = Table("a", models, *id_and("b_id", "b.id"))
    b = Table("b", models, *id_and("a_id", "a.id"))
    await copied(execute(tmp_path / "app.db", CIRCLE), app, models)
    assert (await rows_of(app, a), await rows_of(app, b)) == ([(1, 2)], [(2, 1)])
    assert app.sql("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == "2"


def id_and(name: str, parent: str) -> list[Column[int]]:
    return [Column("id", Integer, primary_key=True), Column(name, ForeignKey(parent))]


async def test_the_engine_of_a_server_database(app: App, tmp_path: Path) -> None:
    """Its writer engine can be used: the copy holds the write turn meanwhile."""
    path = file_of(tmp_path)
    async with SQLiteDatabase(path) as db, app.open(replicas=()) as server:
        await copy_to(db, server.writer_engine, metadata)
        async with server.read() as session:
            assert await session.scalar(select(func.count()).select_from(people)) == 2


async def test_a_database_in_memory(app: App) -> None:
    """It is copied like one in a file."""
    async with SQLiteDatabase(":memory:") as db, engine_of(app) as engine:
        async with db.write() as session:
            await session.run_sync(lambda sync: metadata.create_all(sync.connection()))
            await session.execute(insert(kept).values(id=3))
        assert (await copy_to(db, engine, metadata)).rows == 1
    assert await rows_of(app, kept) == [(3,)]


async def test_a_collation_of_sqlite(app: App, tmp_path: Path) -> None:
    """The error names it with the way out, before anything is copied."""
    models = MetaData()
    Table(
        "t",
        models,
        Column("id", Integer, primary_key=True),
        Column("x", String(collation="NOCASE")),
    )
    path = make_file(tmp_path / "app.db", models, {})
    with pytest.raises(CopyError, match=r"t\.x has the collation NOCASE, .*with_variant"):
        await copied(path, app, models)


async def test_what_the_models_do_not_name(app: App, tmp_path: Path) -> None:
    """It is not copied, but named in a warning."""
    path = make_file(
        *(tmp_path / "app.db", metadata, ROWS),
        "CREATE TABLE cache (id)",
        "ALTER TABLE kept ADD COLUMN note",
    )
    report = await copied(path, app, metadata)
    assert report.warnings == [
        "tables that the models do not name are not copied: cache",
        "columns that the models do not name are not copied: kept.note",
    ]

    def columns(connection: Connection) -> list[str]:
        return [column["name"] for column in inspect(connection).get_columns("kept")]

    async with engine_of(app) as engine, engine.connect() as connection:
        assert await connection.run_sync(columns) == ["id"]


ALEMBIC = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
    "INSERT INTO alembic_version VALUES ('abc')",
)


async def test_the_revision_is_stamped(app: App, tmp_path: Path) -> None:
    """Alembic continues at the file's revision; the models need not contain its table."""
    path = make_file(tmp_path / "app.db", metadata, ROWS, *ALEMBIC)
    report = await copied(path, app, metadata)
    assert (report.revisions, report.warnings) == (["abc"], [])
    assert app.sql("SELECT version_num FROM alembic_version") == "abc"


def test_models_without_tables() -> None:
    """The error says that they were not imported; Alembic's own table does not count."""
    models = MetaData()
    Table("alembic_version", models, Column("version_num", String(32)))
    with pytest.raises(CopyError, match=r"the metadata has no tables: import the models"):
        wanted_tables(models)


@pytest.mark.parametrize("revision", ["abc", "def"])
async def test_a_server_that_was_upgraded(app: App, tmp_path: Path, revision: str) -> None:
    """Its empty tables are used if it is at the revision of the file, and refused if not."""
    path = make_file(tmp_path / "app.db", metadata, ROWS, *ALEMBIC)
    await create_all(app)
    app.sql(f"{ALEMBIC[0]}; INSERT INTO alembic_version VALUES ('{revision}')")
    if revision == "abc":
        assert (await copied(path, app, metadata)).rows > 0
    else:
        with pytest.raises(CopyError, match=r"at Alembic's revision abc and the server at def"):
            await copied(path, app, metadata)
    assert app.sql("SELECT version_num FROM alembic_version") == revision


PLACES = (
    "SELECT conname, obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE contype = 'f'"
)
SPACES = (
    "SELECT relname, spcname FROM pg_class JOIN pg_tablespace s ON s.oid = reltablespace "
    "WHERE relname = 'one'"
)


@pytest.mark.parametrize("first", [False, True], ids=["missing", "there"])
async def test_what_definitions_do_not_have(app: App, tmp_path: Path, first: bool) -> None:
    """Comments on foreign keys and indexes, and tablespaces, are taken from the models."""
    models = MetaData()
    Table("p", models, Column("id", Integer, primary_key=True))
    key = ForeignKeyConstraint(["p"], ["p.id"], name="its p", comment="why: 'it' is 100%")
    index = Index("one", "p", postgresql_tablespace="elsewhere", postgresql_where=Column("p") > 1)
    Table("t", models, Column("id", Integer, primary_key=True), Column("p", Integer), key, index)
    about = DDL("COMMENT ON INDEX one IS 'why not'")  # type: ignore[no-untyped-call]
    event.listen(models, "after_create", about)
    path = execute(
        tmp_path / "app.db",
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE t (id INTEGER PRIMARY KEY, p);"
        "INSERT INTO p VALUES (1); INSERT INTO t VALUES (1, 1)",
    )
    app.sql(f"ALTER DATABASE {app.database} SET allow_in_place_tablespaces = on")
    app.sql("CREATE TABLESPACE elsewhere LOCATION ''")
    try:
        if first:
            async with engine_of(app) as engine, engine.begin() as connection:
                await connection.run_sync(models.create_all)
        assert (await copied(path, app, models)).rows == 2
        assert app.sql(PLACES) == "its p|why: 'it' is 100%"
        assert app.sql(SPACES) == "one|elsewhere"
        assert app.sql("SELECT obj_description('one'::regclass)") == "why not"
    finally:
        app.sql("DROP TABLE IF EXISTS t; DROP TABLE IF EXISTS p")
        app.sql("DROP TABLESPACE elsewhere")
        app.sql(f"ALTER DATABASE {app.database} RESET allow_in_place_tablespaces")


@pytest.mark.parametrize("dry_run", [True, False])
async def test_rows_of_the_models(app: App, tmp_path: Path, dry_run: bool) -> None:
    """Tables that have rows as soon as they are created are refused before any rows are sent."""
    models = MetaData()
    table = Table("t", models, Column("id", Integer, primary_key=True))
    path = make_file(tmp_path / "app.db", models, {table: [{"id": 1}]})
    event.listen(table, "after_create", DDL("CREATE INDEX further ON t (id)"))  # type: ignore[no-untyped-call]
    assert (await copied(path, app, models, dry_run=True)).rows == 1
    event.listen(table, "after_create", DDL("INSERT INTO t VALUES (1)"))  # type: ignore[no-untyped-call]
    with pytest.raises(
        CopyError, match=r"^these tables have rows as soon as .*: t; .*after_create"
    ):
        await copied(path, app, models, dry_run=dry_run)
    assert tables_on(app) == ""

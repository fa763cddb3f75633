"""Missing privileges, and other objects in the place of a table, are found before the copy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Enum, ForeignKey, Integer, MetaData, String, Table
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import CopyError, CopyReport, MisfitsError, SQLiteDatabase, copy_to
from tests.copying.files import copied, execute, misfits_in
from tests.postgresql import App

models = MetaData()
Table("p", models, Column("id", Integer, primary_key=True, autoincrement=False))
Table("t", models, Column("id", ForeignKey("p.id"), primary_key=True, autoincrement=False))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return execute(
        tmp_path / "app.db", "CREATE TABLE p (id PRIMARY KEY); CREATE TABLE t (id PRIMARY KEY)"
    )


@asynccontextmanager
async def role_of(app: App) -> AsyncIterator[Any]:
    """Yield a function that copies as a role that owns nothing."""
    role = f"copies_{app.database}"
    app.sql(f"CREATE ROLE {role} LOGIN")
    engine = create_async_engine(app.url().set(username=role))

    async def copy(path: Path, of: MetaData, **options: Any) -> CopyReport:
        async with SQLiteDatabase(path) as db:
            return await copy_to(db, engine, of, **options)

    copy.role = role  # type: ignore[attr-defined]
    try:
        yield copy
    finally:
        await engine.dispose()
        app.sql(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def refused(app: App, path: Path, of: MetaData) -> list[tuple[str, str]]:
    found = await misfits_in(path, app, of)
    return [(group.place, str(one)) for group in found for one in group.first]


async def test_tables_of_another_owner(app: App, path: Path) -> None:
    """Tables whose foreign keys are dropped and added are listed, with the way out."""
    app.sql("CREATE TABLE p (id INT PRIMARY KEY); CREATE TABLE t (id INT PRIMARY KEY REFERENCES p)")
    async with role_of(app) as copy:
        app.sql(f"GRANT ALL ON p, t TO {copy.role}")
        with pytest.raises(MisfitsError) as caught:
            await copy(path, models, dry_run=True)
        (group,) = caught.value.report.misfits
        assert (group.place, group.kind) == ("t", "schema")
        assert "drops and adds its foreign keys" in str(group.first[0])
        assert "ALTER TABLE … OWNER TO …" in str(group.first[0])
        app.sql("ALTER TABLE t DROP CONSTRAINT t_id_fkey")
        assert (await copy(path, models)).rows == 0
        app.sql(f"REVOKE INSERT ON t FROM {copy.role}")
        (warning,) = (await copy(path, models, dry_run=True)).warnings
        assert warning.startswith("the role of the URL may not write to t: GRANT")
        app.sql(f"DROP TABLE t; DROP TABLE p; GRANT CREATE ON SCHEMA public TO {copy.role}")
        assert (await copy(path, models)).rows == 0  # its own tables


async def test_a_revision_that_cannot_be_written(app: App, tmp_path: Path) -> None:
    """It is found by the file's revision; a file without one needs no privilege."""
    one = MetaData()
    Table("p", one, Column("id", Integer, primary_key=True, autoincrement=False))
    path = execute(tmp_path / "app.db", "CREATE TABLE p (id PRIMARY KEY)")
    app.sql("CREATE TABLE p (id INT PRIMARY KEY)")
    async with role_of(app) as copy:
        app.sql(f"GRANT ALL ON p TO {copy.role}")
        assert (await copy(path, one)).rows == 0
        execute(tmp_path / "app.db", "CREATE TABLE alembic_version (version_num)")
        assert (await copy(path, one)).rows == 0
        execute(tmp_path / "app.db", "INSERT INTO alembic_version VALUES ('abc')")
        with pytest.raises(CopyError, match=r"revision abc, and the role .*GRANT CREATE ON SCHEMA"):
            await copy(path, one, dry_run=True)
        app.sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        app.sql(f"GRANT CREATE ON SCHEMA public TO {copy.role}")
        with pytest.raises(CopyError, match=r"GRANT SELECT, INSERT ON alembic_version"):
            await copy(path, one, dry_run=True)
        app.sql(f"GRANT SELECT, INSERT ON alembic_version TO {copy.role}")
        assert (await copy(path, one)).rows == 0
        assert app.sql("SELECT version_num FROM alembic_version") == "abc"


async def test_an_enum_without_a_name(app: App, tmp_path: Path) -> None:
    """The server's enum has fewer values than the models; one with more is accepted."""
    of = MetaData()
    colour = Enum("red", "blue", name="colour")
    Table("t", of, Column("id", Integer, primary_key=True), Column("c", colour))
    path = execute(tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, c)")
    app.sql("CREATE TYPE colour AS ENUM ('red')")
    for table in ("", "CREATE TABLE t (id INTEGER PRIMARY KEY, c colour)"):
        app.sql(table or "SELECT 1")
        ((place, why),) = await refused(app, path, of)
        assert place == "t.c"
        assert why.startswith("the enum colour on the server does not have 'blue': add it there")
    app.sql("ALTER TYPE colour ADD VALUE 'blue'; ALTER TYPE colour ADD VALUE 'green'")
    assert (await copied(path, app, of)).rows == 0


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
async def test_a_view(app: App, tmp_path: Path, kind: str) -> None:
    """It is not a table, although it has the same columns."""
    one = MetaData()
    Table("t", one, Column("id", Integer, primary_key=True), Column("s", String))
    path = execute(tmp_path / "app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, s)")
    app.sql("CREATE TABLE o (id INT, s VARCHAR)")
    app.sql(f"CREATE {kind} t AS SELECT * FROM o")
    ((place, why),) = await refused(app, path, one)
    assert (place, why) == (
        "t",
        f"a {kind.lower()} on the server: drop it there, or give it another name",
    )
    app.sql(f"DROP {kind} t")
    app.sql("CREATE TABLE t (id INT PRIMARY KEY, s VARCHAR) PARTITION BY HASH (id)")
    assert (await copied(path, app, one, dry_run=True)).rows == 0

"""The server's sequences continue after the largest number in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, Identity, Integer, MetaData, Numeric, String, Table
from sqlalchemy import Sequence as DBSequence

from sa_sqlite_pool import CopyError
from tests.copying.files import copied, execute, make_file, misfits_in, tables_on
from tests.postgresql import App

LAST = 2**31 - 1


def models_of(*columns: Any, **options: Any) -> MetaData:
    models = MetaData()
    Table("t", models, *columns, **options)
    return models


def ids_of(tmp_path: Path, models: MetaData, *ids: int, name: str = "id") -> Path:
    rows = [f"INSERT INTO t ({name}) VALUES ({id_})" for id_ in ids]
    return make_file(tmp_path / "app.db", models, {}, *rows)


def next_of(app: App, sequence: str) -> int:
    return int(app.sql(f"SELECT nextval('{sequence}')"))


async def test_the_mark_of_a_column_with_another_key(app: App, tmp_path: Path) -> None:
    """AUTOINCREMENT has assigned 100; the attribute of the model and the column differ in name."""
    key = Column("ident", Integer, primary_key=True, key="k")
    models = models_of(key, sqlite_autoincrement=True)
    path = ids_of(tmp_path, models, 5, 100, name="ident")
    path = make_file(path, MetaData(), {}, "DELETE FROM t WHERE ident = 100")
    await copied(path, app, models)
    assert next_of(app, "t_ident_seq") == 101


@pytest.mark.parametrize("owned", [True, False])
async def test_a_sequence_that_no_column_owns(app: App, tmp_path: Path, owned: bool) -> None:
    """The default of an existing table depends on it; it is in another schema, with an odd name."""
    app.sql('CREATE SCHEMA "n%"; CREATE SEQUENCE "n%"."S""q:%"; CREATE SEQUENCE other')
    app.sql("""CREATE TABLE t (id INT PRIMARY KEY DEFAULT nextval('"n%"."S""q:%"'), s VARCHAR)""")
    if owned:
        app.sql('ALTER SEQUENCE "n%"."S""q:%" OWNED BY NONE; ALTER SEQUENCE other OWNED BY t.id')
    models = models_of(Column("id", Integer, primary_key=True), Column("s", String))
    report = await copied(ids_of(tmp_path, models, 1, 7), app, models)
    assert report.warnings == []
    app.sql("INSERT INTO t DEFAULT VALUES")
    assert app.sql("SELECT max(id) FROM t") == "8"


async def test_a_sequence_that_is_ahead(app: App, tmp_path: Path) -> None:
    """It is not set back: two tables may share it, and its numbers may be known elsewhere."""
    models = models_of(Column("id", Integer, Identity(start=1000), primary_key=True))
    await copied(ids_of(tmp_path, models, 1, 7), app, models)
    assert next_of(app, "t_id_seq") == 1000


async def test_a_sequence_that_goes_down(app: App, tmp_path: Path) -> None:
    """It continues below the smallest number."""
    models = models_of(Column("id", Integer, Identity(start=-1, increment=-1), primary_key=True))
    await copied(ids_of(tmp_path, models, -1, -2, -3), app, models)
    assert next_of(app, "t_id_seq") == -4


async def test_a_sequence_in_a_text(app: App, tmp_path: Path) -> None:
    """Its current number is unknown, so a warning is given."""
    app.sql(
        "CREATE SEQUENCE s; CREATE TABLE t (id VARCHAR PRIMARY KEY DEFAULT 'A' || nextval('s'))"
    )
    models = models_of(Column("id", String, primary_key=True))
    path = make_file(tmp_path / "app.db", models, {}, "INSERT INTO t VALUES ('A1')")
    (warning,) = (await copied(path, app, models)).warnings
    assert warning.startswith("the sequence s is in the default of t.id, which contains no numbers")


async def test_the_last_number(app: App, tmp_path: Path) -> None:
    """It is copied; a warning and the server's state show that there is no further one."""
    models = models_of(Column("id", Integer, primary_key=True))
    (warning,) = (await copied(ids_of(tmp_path, models, LAST), app, models)).warnings
    assert warning.startswith(
        f"the largest id of t, {LAST}, is the last that the sequence t_id_seq"
    )
    assert app.sql("SELECT last_value, is_called FROM t_id_seq") == f"{LAST}|t"


def keys(name: str) -> list[Any]:
    return {
        "composite": [
            Column("tenant", String, primary_key=True),
            Column("id", Integer, Identity(), primary_key=True),
        ],
        "none": [Column("tenant", String), Column("id", Integer, Identity())],
        "other": [Column("tenant", String, primary_key=True), Column("ID", Integer, Identity())],
    }[name]


@pytest.mark.parametrize("name", ["composite", "none", "other"])
async def test_the_mark_of_a_file_with_another_key(app: App, tmp_path: Path, name: str) -> None:
    """The mark is that of the file's own key, whatever key the models have."""
    columns = keys(name)
    models = models_of(*columns)
    path = execute(
        tmp_path / "app.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT UNIQUE);"
        "INSERT INTO t VALUES (1, 'a'), (70, 'b'); DELETE FROM t WHERE id = 70",
    )
    assert (await copied(path, app, models)).rows == 1
    added = app.sql(f"INSERT INTO t (tenant) VALUES ('c') RETURNING \"{columns[1].name}\"")
    assert added == "71"


async def test_a_sequence_of_numeric(app: App, tmp_path: Path) -> None:
    """The column contains decimals that are integers."""
    models = models_of(Column("id", Numeric(20), DBSequence("ids"), primary_key=True))
    report = await copied(ids_of(tmp_path, models, 3, 7), app, models)
    assert (report.warnings, next_of(app, "ids")) == ([], 8)


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_mark_beyond_the_type(app: App, tmp_path: Path, dry_run: bool) -> None:
    """It is listed before rows are sent; a mark at the end, or one in a BIGINT, is not refused."""
    key = Column("id", Integer, primary_key=True)
    models = models_of(key, sqlite_autoincrement=True)
    path = ids_of(tmp_path, models, 1, LAST)
    assert (await copied(path, app, models, dry_run=True)).rows == 2
    path = make_file(path, MetaData(), {}, "UPDATE sqlite_sequence SET seq = 5000000000")
    (group,) = await misfits_in(path, app, models, dry_run=dry_run)
    assert (group.place, group.kind, group.first[0].found) == ("t.id", "range", "5000000000")
    assert "AUTOINCREMENT has assigned: INTEGER ends at 2,147,483,647" in group.first[0].why
    big = models_of(Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True))
    await copied(path, app, big)
    assert next_of(app, "t_id_seq") == 5_000_000_001


async def test_a_sequence_after_a_copy_that_failed(app: App, tmp_path: Path) -> None:
    """It is unchanged, although setval() alone survives a ROLLBACK."""
    models = models_of(Column("id", Integer, primary_key=True), Column("s", String))
    app.sql("CREATE TABLE t (id SERIAL PRIMARY KEY, s VARCHAR)")

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "verify":
            raise LookupError(phase)

    with pytest.raises(LookupError):
        await copied(ids_of(tmp_path, models, 1, 7), app, models, progress=progress)
    assert app.sql("SELECT last_value, is_called FROM t_id_seq") == "1|f"
    assert "t_id_seq" in tables_on(app)


ALEMBIC = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"
LONG = "20240101_the_name_of_a_long_revision"


@pytest.mark.parametrize("there", ["other", LONG[:32]])
async def test_a_dry_run_sees_another_revision(app: App, tmp_path: Path, there: str) -> None:
    """Like a copy, it refuses that, and also a revision that is too long for the server's table."""
    models = models_of(Column("id", Integer, primary_key=True))
    stamped = f"INSERT INTO alembic_version VALUES ('{LONG}')"
    path = make_file(tmp_path / "app.db", models, {}, ALEMBIC, stamped)
    app.sql(ALEMBIC)
    for dry_run in (True, False):
        with pytest.raises(CopyError, match=r"has 36 characters, .* accepts 32: ALTER TABLE"):
            await copied(path, app, models, dry_run=dry_run)
    app.sql(f"INSERT INTO alembic_version VALUES ('{there}')")
    for dry_run in (True, False):
        with pytest.raises(CopyError, match=rf"revision {LONG} and the server at {there}: upgrade"):
            await copied(path, app, models, dry_run=dry_run)


async def test_a_long_revision(app: App, tmp_path: Path) -> None:
    """It is stamped if Alembic's table does not exist yet, or is wide enough."""
    models = models_of(Column("id", Integer, primary_key=True))
    stamped = f"INSERT INTO alembic_version VALUES ('{LONG}')"
    path = make_file(tmp_path / "app.db", models, {}, ALEMBIC, stamped)
    for _ in range(2):
        await copied(path, app, models)
        assert app.sql("SELECT version_num FROM alembic_version") == LONG
        app.sql("DELETE FROM alembic_version")

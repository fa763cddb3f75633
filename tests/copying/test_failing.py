"""A copy that does not complete leaves the server unchanged, and another copy works."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text

from sa_sqlite_pool import ConfigurationError, CopyError, SQLiteDatabase, copy_to
from sa_sqlite_pool.reporting.events import CommitCancelled
from tests.copying.everything import everything, rows
from tests.copying.everything import metadata as everything_metadata
from tests.copying.files import copied, engine_of, make_file, rows_of, tables_on
from tests.copying.shapes import ROWS, kept, metadata, people
from tests.postgresql import App, until
from tests.servers.test_events import SLOW_COMMIT

PHASES = ("snapshot", "check", "copy", "finish", "verify")


def left_in(directory: Path) -> list[str]:
    """Return the files that remain of the copy of the file."""
    return [path.name for path in directory.iterdir() if path.name.startswith("sa_sqlite_pool-")]


async def test_the_server_refuses_a_row(app: App, tmp_path: Path) -> None:
    """The error of a CHECK that the file does not enforce names the table and the constraint.

    Nothing is left, even with an engine that commits each statement.
    """
    path = make_file(
        *(tmp_path / "app.db", metadata, ROWS),
        "PRAGMA ignore_check_constraints = ON",
        "UPDATE people SET age = -1 WHERE id = 3",
    )
    async with SQLiteDatabase(path) as db, engine_of(app, isolation_level="AUTOCOMMIT") as engine:
        with pytest.raises(CopyError, match=r'copying people failed, and nothing .*"born"'):
            await copy_to(db, engine, metadata)
    assert tables_on(app) == ""
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancellation(app: App, tmp_path: Path, phase: str) -> None:
    """At any time, it leaves nothing on the server or beside the file, and the next copy works."""
    path = make_file(tmp_path / "app.db", metadata, ROWS)
    came: list[str] = []

    def progress(now: str, done: int, total: int) -> None:
        if now == phase and not came:
            came.append(now)
            task.cancel()

    task = asyncio.ensure_future(copied(path, app, metadata, progress=progress))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert came == [phase]
    assert tables_on(app) == ""
    assert left_in(tmp_path) == []
    await copied(path, app, metadata)
    assert len(await rows_of(app, people)) == len(ROWS[people])


# The copy executes deferred triggers; this one defers another, until the COMMIT.
LATER = """
CREATE TABLE copied (id int PRIMARY KEY);
CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN SET CONSTRAINTS ALL DEFERRED; INSERT INTO notes VALUES (1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON copied DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION later();
"""


@pytest.mark.parametrize("facade", [False, True])
async def test_a_cancelled_commit(
    app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture, facade: bool
) -> None:
    """Its outcome is unknown, which is logged once."""
    models = MetaData()
    table = Table("copied", models, Column("id", Integer, primary_key=True))
    app.sql(SLOW_COMMIT + LATER)
    path = make_file(tmp_path / "app.db", models, {table: [{"id": 1}]})
    async with SQLiteDatabase(path) as db, engine_of(app) as plain, app.open(replicas=[]) as server:
        copy = asyncio.ensure_future(copy_to(db, server if facade else plain, models))
        sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
        sleeps += "AND datname = current_database()"
        await until(lambda: app.sql(sleeps) == "1")
        copy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copy
    name = f"127.0.0.1:{app.cluster.primary.port}/{app.database}"
    (record,) = [one for one in caplog.records if vars(one).get("event") == CommitCancelled.name]
    assert vars(record)["server"] == vars(record)["database"] == name
    assert "was cancelled before its answer arrived" in record.getMessage()


async def test_a_progress_that_raises(app: App, tmp_path: Path) -> None:
    """Its error is raised, and ends the copy."""
    path = make_file(tmp_path / "app.db", metadata, ROWS)

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "verify":
            raise LookupError(phase)

    with pytest.raises(LookupError):
        await copied(path, app, metadata, progress=progress)
    assert tables_on(app) == ""


CHANGES = {
    "text": "'other'",
    "float": "NEW.float + 1e-9",
    "numeric": "NEW.numeric + 0.01",
    "boolean": "NOT NEW.boolean",
    "datetime": "NEW.datetime + interval '1 microsecond'",
    "interval": "NEW.interval + interval '1 microsecond'",
    "bytes": "NEW.bytes || '\\x00'",
    "json": "'1'",
    "jsonb": "'1'",
    "inet": "NULL",
}


async def test_a_value_that_is_changed_is_found(app: App, tmp_path: Path) -> None:
    """A trigger on the server changes one value of one row: the data read back differs."""
    path = make_file(tmp_path / "app.db", everything_metadata, {everything: rows()})
    async with engine_of(app) as engine, engine.begin() as connection:
        await connection.run_sync(everything_metadata.create_all)
    for number, (column, value) in enumerate(CHANGES.items()):
        app.sql(
            "CREATE OR REPLACE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF NEW.id = 2 THEN NEW.{column} = {value}; END IF; RETURN NEW; END $$"
        )
        if number == 0:
            app.sql(
                "CREATE TRIGGER change BEFORE INSERT ON everything "
                "FOR EACH ROW EXECUTE FUNCTION change()"
            )
        with pytest.raises(CopyError, match=r"everything was not read back as it was sent"):
            await copied(path, app, everything_metadata)
        assert app.sql("SELECT count(*) FROM everything") == "0"


DEFERRED = (
    "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {}; RETURN NULL; END $$;"
    "CREATE CONSTRAINT TRIGGER change AFTER INSERT ON people DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION change()"
)


CHANGES_LATER = [
    "UPDATE people SET age = 99 WHERE id = NEW.id",
    "DELETE FROM people WHERE id = NEW.id AND age = 30",
]


@pytest.mark.parametrize("change", CHANGES_LATER)
async def test_a_deferred_trigger(app: App, tmp_path: Path, change: str) -> None:
    """What one changes at COMMIT is found, too."""
    path = make_file(tmp_path / "app.db", metadata, ROWS)
    async with engine_of(app) as engine, engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    app.sql(DEFERRED.format(change) + "; ALTER TABLE teams DROP CONSTRAINT led_by")
    with pytest.raises(CopyError, match=r"people was not read back as it was sent"):
        await copied(path, app, metadata)
    assert app.sql("SELECT count(*) FROM people") == "0"


async def test_a_deferred_trigger_that_changes_nothing(app: App, tmp_path: Path) -> None:
    """It is executed, and its table gets its foreign keys and indexes."""
    path = make_file(tmp_path / "app.db", metadata, ROWS)
    async with engine_of(app) as engine, engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    app.sql(DEFERRED.format("PERFORM 1"))
    await copied(path, app, metadata)
    assert app.sql("SELECT count(*) FROM people") == str(len(ROWS[people]))


async def test_a_deferred_trigger_that_fails(app: App, tmp_path: Path) -> None:
    """It is named."""
    path = make_file(tmp_path / "app.db", metadata, ROWS)
    async with engine_of(app) as engine, engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    app.sql(DEFERRED.format("RAISE EXCEPTION 'no room'"))
    with pytest.raises(
        CopyError, match=r"executing deferred constraints and triggers failed, .*: no room"
    ):
        await copied(path, app, metadata)
    assert app.sql("SELECT count(*) FROM people") == "0"


async def test_the_application_writes_on(app: App, tmp_path: Path) -> None:
    """A copy has the state at its start; the log can be truncated while the copy runs."""
    path = make_file(tmp_path / "app.db", metadata, ROWS)
    async with SQLiteDatabase(path) as db, engine_of(app) as engine, engine_of(app) as other:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        async with other.connect() as reading:
            await reading.execute(text("SELECT * FROM kept"))  # the copy waits for its lock
            copy = asyncio.ensure_future(copy_to(db, engine, metadata))
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = "
            waits += "(SELECT oid FROM pg_database WHERE datname = current_database())"

            async def waiting() -> bool:
                return await asyncio.to_thread(app.sql, waits) == "1"

            await until(waiting)  # the copy proceeds meanwhile
            async with db.write() as session:
                await session.execute(text("DELETE FROM kept"))
            assert (await db.checkpoint("truncate")).outcome.value == "truncated"
            assert left_in(tmp_path) == []
        await copy
    assert await rows_of(app, kept) == [(row["id"],) for row in ROWS[kept]]


async def test_engines_that_cannot_be_written_to(tmp_path: Path) -> None:
    """They are named at once, before anything is copied."""
    async with SQLiteDatabase(tmp_path / "app.db") as db:
        with pytest.raises(ConfigurationError, match=r"cannot write to sqlite\+aiosqlite"):
            await copy_to(db, db.writer_engine, metadata)

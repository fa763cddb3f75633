"""Errors raised while the rows of a stream are fetched are the same as those of statements."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from sa_sqlite_pool import ForbiddenWriteError, ServerDatabase, StatementTimeout
from sa_sqlite_pool.postgresql.sqlstate import sqlstate_of
from tests.postgresql import App, until
from tests.servers.freezing import nothing_left

SCHEMA = """
CREATE TABLE notes (id int);
CREATE FUNCTION note(n int) RETURNS int LANGUAGE sql AS
    'INSERT INTO notes VALUES (n) RETURNING id';
CREATE FUNCTION fail(n int) RETURNS int LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''given up'' USING ERRCODE = ''40001''; END';
"""
LATE = "SELECT CASE WHEN n = 300 THEN {} ELSE n END FROM generate_series(1, 1000) AS n"
CHUNKS = {"yield_per": 10}


async def prepare(app: App) -> None:
    app.sql(SCHEMA)
    await until(app.cluster.caught_up)


async def read(db: ServerDatabase, sql: str) -> int:
    """Return the number of rows of a stream."""
    async with db.read() as session:
        rows = await session.stream(text(sql), execution_options=CHUNKS)
        return len([row async for row in rows])


async def test_a_reader_cannot_write(app: App) -> None:
    """The error is the same as that of SQLite's readers, and contains the statement."""
    await prepare(app)
    async with app.open(replicas=app.replica_urls[:1]) as db, nothing_left(db):
        with pytest.raises(OperationalError, match="use a writer session") as caught:
            await read(db, LATE.format("note(n)"))
        error = caught.value
        assert isinstance(error.orig, ForbiddenWriteError)
        assert sqlstate_of(error) == "25006"
        assert error.statement is not None
        said = str(error.orig)
        assert "cannot change a database: SELECT CASE WHEN" in said
        assert "(cannot execute INSERT in a read-only transaction); use" in said
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert await read(db, LATE.format("n")) == 1000


async def test_an_error_is_sqlalchemys(app: App) -> None:
    """This holds with both drivers."""
    async with app.open(replicas=app.replica_urls[:1]) as db, nothing_left(db):
        with pytest.raises(DBAPIError, match="division by zero") as caught:
            await read(db, LATE.format("1 / (n - 300)"))
        assert sqlstate_of(caught.value) == "22012"
        assert not caught.value.connection_invalidated


async def test_the_time_is_up(app: App) -> None:
    """In a later chunk, the limit of the database applies, or one that the application has set."""
    late = text(LATE.format("length(pg_sleep(60)::text)"))
    async with app.open(replicas=[], statement_timeout=0.3) as db, nothing_left(db):
        with pytest.raises(StatementTimeout, match=r"statement_timeout=0\.3 s: SELECT CASE WHEN"):
            await read(db, late.text)
        assert await read(db, LATE.format("n")) == 1000
    async with app.open(replicas=[]) as db, nothing_left(db):
        with pytest.raises(StatementTimeout, match="the statement_timeout of the server: SELECT C"):
            async with db.read() as session:
                await session.execute(text("SET LOCAL statement_timeout = 300"))
                async for _ in await session.stream(late, execution_options=CHUNKS):
                    pass


@pytest.mark.parametrize("app", ["asyncpg"], indirect=True)
async def test_an_error_of_the_application(app: App) -> None:
    """An error of its decoder, which the driver calls, is raised unchanged."""

    def decode(value: str) -> int:
        if value == "300":
            raise ValueError("mine")
        return int(value)

    def listener(connection: Any, _record: object) -> None:
        options: Any = {"encoder": str, "decoder": decode, "format": "text"}
        connection.run_async(
            lambda driver: driver.set_type_codec("int4", schema="pg_catalog", **options)
        )

    async with app.open(replicas=[]) as db:
        event.listen(db.reader_engine.sync_engine, "connect", listener)
        await db.reader_engine.dispose()
        with pytest.raises(ValueError, match="mine"):
            await read(db, LATE.format("n"))


async def test_run_read_runs_again(app: App) -> None:
    """It also does so after a conflict with recovery in a later chunk."""
    await prepare(app)
    runs: list[str] = []

    def count(session: Session) -> int:
        runs.append("fail(n)" if not runs else "n")
        options: Any = {"stream_results": True, **CHUNKS}
        return len([*session.execute(text(LATE.format(runs[-1])), execution_options=options)])

    async with app.open(replicas=app.replica_urls[:1]) as db, nothing_left(db):
        assert await db.run_read(count) == 1000
    assert len(runs) == 2


async def test_a_connection_that_ends(app: App) -> None:
    """The connection is invalidated, and the next read uses another one."""
    async with app.open(replicas=[]) as db, nothing_left(db):
        with pytest.raises(DBAPIError) as caught:
            await read(db, LATE.format("pg_terminate_backend(pg_backend_pid())::int"))
        assert caught.value.connection_invalidated
        assert await read(db, LATE.format("n")) == 1000

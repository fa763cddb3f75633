"""Waits for locks end with WriteTimeout, which names the holder, in whichever process it is."""

from __future__ import annotations

import asyncio
import pickle
import re
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from sa_sqlite_pool import WriteTimeout
from tests.postgresql import App, until
from tests.servers.doing import ONE, at_once
from tests.servers.freezing import nothing_left
from tests.servers.models import create_accounts

UPDATE = text("UPDATE accounts SET balance = balance + 1")
HELD_BY_A_READER = (
    r"it is held by task '.*' \(now at test_lock_waits\.py:\d+.*, last SQL: SELECT count.*\), "
    r"which has held a reader for \d+\.\d s; "
)
_PID_OF_NIGHTLY = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'nightly' AND state <> 'idle'"
)
MODES = pytest.mark.parametrize("writes", ["in turn", "serializable"])


class OtherProgram:
    """A transaction of another program, which holds locks without the turn."""

    def __init__(self, app: App, sql: str) -> None:
        self._app = app
        self._sql = sql

    async def __aenter__(self) -> None:
        self._db = await self._app.open(
            writes="serializable",
            replicas=[],
            connect_args=_named(self._app, "nightly"),
        ).open()
        self._session = self._db.sessionmaker(role="writer")
        await self._session.execute(text(self._sql))

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._db.close()


def _named(app: App, name: str) -> dict[str, Any]:
    if app.driver == "psycopg":
        return {"application_name": name}
    return {"server_settings": {"application_name": name}}


@MODES
async def test_a_row_that_another_program_has(app: App, writes: str) -> None:
    """The error names the holder's process, program, state and last statement."""
    async with app.open(writes=writes, write_timeout=0.2, replicas=[]) as db:
        await create_accounts(db)
        async with nothing_left(db), OtherProgram(app, "UPDATE accounts SET balance = 7"):
            with pytest.raises(WriteTimeout) as caught:
                async with db.write() as session:
                    await session.execute(UPDATE)
        message = str(caught.value)
        assert re.search(r"waited 0\.\d+ s for a lock on 127\.0\.0\.1:\d+/", message), message
        assert re.search(r"PID \d+ of nightly on 127\.0\.0\.1", message), message
        assert "idle in transaction" in message
        assert "UPDATE accounts SET balance = 7" in message
        assert isinstance(caught.value, OperationalError)
        assert str(pickle.loads(pickle.dumps(caught.value))) == message
        async with db.write() as session:
            await session.execute(UPDATE)


async def test_a_row_that_a_task_of_this_process_has(app: App) -> None:
    """The error names the task that holds it, and the line where that task is now."""
    async with app.open(writes="serializable", write_timeout=0.2, replicas=[]) as db:
        await create_accounts(db)
        holds, release = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with db.write() as session:
                await session.execute(UPDATE)
                holds.set()
                await release.wait()

        holder = asyncio.create_task(hold(), name="import-42")
        await holds.wait()
        with pytest.raises(WriteTimeout, match=r"'import-42' \(now at .* a writer for"):
            async with db.write() as session:
                await session.execute(UPDATE)
        release.set()
        await holder


@MODES
async def test_a_change_of_the_schema(app: App, writes: str) -> None:
    """It waits for all transactions that have read the table, and its error names the task."""
    async with app.open(writes=writes, write_timeout=0.2, replicas=[]) as db:
        await create_accounts(db)
        async with db.read() as reading:
            await reading.execute(text("SELECT count(*) FROM accounts"))
            with pytest.raises(WriteTimeout, match=HELD_BY_A_READER):
                async with db.writer_engine.begin() as connection:
                    await connection.execute(text("ALTER TABLE accounts ADD note text"))


async def test_a_process_of_a_replica_with_the_same_pid(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task is not named: it holds nothing on the primary."""
    async with app.open(write_timeout=0.2) as db:
        await create_accounts(db)
        await until(app.cluster.caught_up)
        pool: Any = db.writer_engine.pool
        driver, writers = type(pool.driver), pool.checked_out.permits
        of_process = driver.process_id

        def process_id(self: Any, connection: Any) -> Any:
            if any(record.dbapi_connection is connection for record in writers):
                return of_process(self, connection)
            return holder

        async with db.read() as reading, OtherProgram(app, "UPDATE accounts SET balance = 7"):
            await reading.execute(ONE)
            holder = int(app.sql(_PID_OF_NIGHTLY))
            monkeypatch.setattr(driver, "process_id", process_id)
            with pytest.raises(WriteTimeout, match=rf"it is held by PID {holder} of nightly"):
                async with db.write() as session:
                    await session.execute(UPDATE)


async def test_a_statement_that_waits_for_no_lock(app: App) -> None:
    """It may take longer than write_timeout, as may one that had to wait for a moment."""
    db = app.open(writes="serializable", write_timeout=0.1, replicas=[])
    async with db, nothing_left(db), db.write() as session:
        await session.execute(text("SELECT pg_sleep(0.5)"))


async def test_only_the_wait_counts(app: App) -> None:
    """A statement that computes first still has the whole limit for the lock."""
    late = text("DO $$ BEGIN PERFORM pg_sleep(0.2); UPDATE accounts SET balance = 3; END $$")
    async with app.open(writes="serializable", write_timeout=0.3, replicas=[]) as db:
        await create_accounts(db)
        async with OtherProgram(app, "UPDATE accounts SET balance = 7"):
            with pytest.raises(WriteTimeout) as caught:
                async with db.write() as session:
                    await session.execute(late)
    found = re.search(r"waited (\d+\.\d+) s for a lock", str(caught.value))
    assert found is not None
    assert float(found[1]) >= 0.3


async def test_many_statements_share_their_timers(app: App) -> None:
    """A statement that has ended sends no query, and leaves no timer."""
    db = app.open(writes="serializable", write_timeout=0.2, replicas=[])
    async with db, nothing_left(db), db.write() as session:
        for _ in range(100):
            await session.execute(ONE)
        before = db.statistics().servers[-1].connections.opened
        await session.execute(text("SELECT pg_sleep(1)"))
        assert db.statistics().servers[-1].connections.opened == before + 1


async def test_the_turn_of_another_process(app: App) -> None:
    """A time-out for the turn names the process, its program, its state and its last SQL."""
    async with app.open(write_timeout=0.2, replicas=[]) as db:
        other = app.open(replicas=[], connect_args=_named(app, "worker 7"))
        async with other, nothing_left(db), other.write() as session:
            await session.execute(text("SELECT 'the holder'"))
            with pytest.raises(WriteTimeout, match=r"PID \d+ of worker 7 on .*the holder") as it:
                await at_once(db)
        assert str(pickle.loads(pickle.dumps(it.value))) == str(it.value)
        waits = db.statistics().turn.waits_for_processes
        assert (waits.waited, waits.timed_out) == (1, 1)
        await at_once(db)


async def test_the_holder_has_gone_meanwhile(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends between the time-out and the query for it: the error says that it has ended."""
    async with app.open(write_timeout=0.2, replicas=[]) as db, app.open(replicas=[]) as other:
        session = other.sessionmaker(role="writer")
        await session.execute(ONE)
        driver_class = type(db.writer_engine.pool.driver)  # type: ignore[attr-defined]
        rows = driver_class.rows

        def ask(driver: Any, connection: Any, sql: str) -> Any:
            end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_locks l JOIN "
            end += "pg_stat_activity a USING (pid) WHERE locktype = 'advisory' AND l.granted "
            end += "AND a.datname = current_database()"
            assert app.sql(end) == "1"
            return rows(driver, connection, sql)

        monkeypatch.setattr(driver_class, "rows", ask)
        with pytest.raises(WriteTimeout, match="another process, which has ended since"):
            await at_once(db)
        await session.close()


async def test_programs_are_known_by_their_names(app: App) -> None:
    """application_name names the package and the program, unless the application sets it."""
    shown = text("SHOW application_name")
    async with app.open(replicas=[]) as db, db.read() as session:
        assert (await session.scalar(shown)).startswith("sa_sqlite_pool ")
    db = app.open(replicas=[], connect_args=_named(app, "mine"))
    async with db, db.read() as session:
        assert await session.scalar(shown) == "mine"


async def test_a_broken_connection_in_begin(app: App) -> None:
    """If the server has ended it, SQLAlchemy's error is raised, and it is reconnected.

    A connection at rest is reconnected without an error.
    """
    async with app.open(replicas=[]) as db:
        await at_once(db)
        end_all(app)
        await at_once(db)
        async with db.writer_engine.connect() as connection:
            end_all(app)
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(text("SELECT 1"))
            assert caught.value.connection_invalidated
        await at_once(db)


def end_all(app: App) -> None:
    """End all server processes that serve the database."""
    app.sql(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

"""Transactions that are idle on a server are logged, with their task and line."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from sqlalchemy import event, text

from sa_sqlite_pool.servers import pool
from sa_sqlite_pool.servers.database import ServerDatabase
from tests.postgresql import App, until
from tests.servers.doing import ONE, at_once
from tests.servers.freezing import pools
from tests.servers.test_frozen import DOORS


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("db.write()", "the write turn"),
        ("db.read()", "a transaction"),
        ("the reader engine", "a transaction"),
    ],
)
async def test_an_idle_transaction(
    app: App, name: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, with the line that requested it and its last SQL."""
    async with app.open(replicas=[], idle_warning=60) as db, DOORS[name](db) as session:
        await session.execute(ONE)
        for _ in range(2):
            look_after_a_minute(db)
    (record,) = caplog.records
    assert re.match(rf"PostgreSQL: {what} of 127\.0\.0\.1:\d+/\w+ has been idle", record.message)
    assert "requested at test_idle.py:" in record.message
    assert "last SQL: SELECT 1" in record.message


def look_after_a_minute(db: ServerDatabase) -> None:
    """Look for idle transactions, as if each had been idle for one more minute."""
    for one in pools(db):
        for permit in one.checked_out.permits.values():
            if permit.idle_since is not None:
                permit.idle_since -= 60
        one._idle_watch.look()


async def test_a_timer_looks_for_it(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """It finds the transaction while it is open, without any other event."""
    async with app.open(replicas=[], idle_warning=0.02) as db, db.write() as session:
        await session.execute(ONE)
        await until(lambda: caplog.records)


async def test_to_open_a_connection_is_not_idle(app: App) -> None:
    """The time taken to connect, including listeners, does not count as the transaction's."""
    opened: list[float] = []
    db = app.open(replicas=[])
    async with db:
        for engine, one in zip((db.writer_engine, db.reader_engine), pools(db), strict=True):
            await engine.dispose()
            event.listen(engine.sync_engine, "connect", lambda *_: opened.append(time.monotonic()))
            async with engine.connect():
                (permit,) = one.checked_out.permits.values()
                assert permit.idle_since is not None
                assert permit.idle_since >= opened[-1]


async def test_what_is_not_idle(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """A running statement is not idle, nor is a reader's connection outside of a transaction."""
    db = app.open(replicas=[], idle_warning=60)
    async with db, db.reader_engine.connect() as connection, db.write() as session:
        await session.execute(ONE)
        (permit,) = pools(db)[0].checked_out.permits.values()
        running = asyncio.create_task(session.execute(text("SELECT pg_sleep(0.2)")))
        await until(lambda: permit.idle_since is None)
        look_after_a_minute(db)
        assert not connection.in_transaction()
        await running
    async with app.open(replicas=[], idle_warning=None) as db, db.write() as session:
        await session.execute(ONE)
        for _ in range(10):
            await asyncio.sleep(0)
    assert caplog.records == []


async def test_a_checkout_that_fails_at_its_end(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fail like a task at the end of its stack: the turn passes on."""

    def fail(*_: object) -> None:
        raise RecursionError

    async with app.open(replicas=[]) as db:
        with monkeypatch.context() as failing:
            failing.setattr(pool, "Held", fail)
            with pytest.raises(RecursionError):
                async with db.write() as session:
                    await session.execute(ONE)
        async with db.write() as session:
            await asyncio.wait_for(session.execute(ONE), 5)


async def test_to_wait_for_another_process_is_not_idle(app: App) -> None:
    """This is the wait in line for the turn."""
    async with app.open(replicas=[]) as db, app.open(replicas=[]) as other:
        async with other.write() as session:
            await session.execute(ONE)
            writing = asyncio.create_task(at_once(db))
            await app.someone_waits_for("advisory")
            (permit,) = pools(db)[0].checked_out.permits.values()
            assert permit.idle_since is None
        await writing

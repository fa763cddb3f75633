"""Events of servers, caused by real failures: a record has its level and all its fields."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext, suppress
from dataclasses import fields
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sa_sqlite_pool.freshness import Position
from sa_sqlite_pool.reporting import events
from sa_sqlite_pool.reporting.events import Event
from sa_sqlite_pool.servers import commits
from sa_sqlite_pool.servers.connections.positions import position_of_commit
from sa_sqlite_pool.servers.drivers.interface import Driver
from tests.postgresql import App, until


def records(caplog: pytest.LogCaptureFixture, event: type[Event]) -> list[logging.LogRecord]:
    return [one for one in caplog.records if vars(one).get("event") == event.name]


async def test_a_replica_goes_and_comes_back(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """One record is logged when it does not respond, and one when it responds again."""
    caplog.set_level(logging.INFO, logger="sa_sqlite_pool")
    replica = app.cluster.replicas[0]
    async with app.open(replicas=[app.url(replica)]) as db:
        replica.stop()
        try:
            for _ in range(3):
                with suppress(DBAPIError):  # if a broken connection is at rest
                    await db.run_read(lambda session: session.scalar(text("SELECT 1")))
        finally:
            replica.start()
        await until(lambda: records(caplog, events.ReplicaUp))
        assert "1 of 1 replicas up" in repr(db)
    for event in (events.ReplicaDown, events.ReplicaUp):
        (record,) = records(caplog, event)
        found = vars(record)
        assert record.levelno == event.level
        assert {field.name for field in fields(event)} <= found.keys()
        assert found["server"] == f"127.0.0.1:{replica.port}/{app.database}"
        assert found["database"] == f"127.0.0.1:{app.cluster.primary.port}/{app.database}"


SLOW_COMMIT = """
CREATE TABLE notes (id int);
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION slow();
"""
INSERT = text("INSERT INTO notes VALUES (1)")


def text_of_cancelled(caplog: pytest.LogCaptureFixture, app: App) -> str:
    """Return the text of the only record of a cancelled COMMIT, after checking its fields."""
    (record,) = records(caplog, events.CommitCancelled)
    assert record.levelno == logging.WARNING
    assert vars(record)["server"] == f"127.0.0.1:{app.cluster.primary.port}/{app.database}"
    return record.getMessage()


@pytest.mark.parametrize("fresh", [False, True])
async def test_a_commit_is_cancelled(
    app: App, caplog: pytest.LogCaptureFixture, fresh: bool
) -> None:
    """It is cancelled before the server answers: the record says that the outcome is unknown."""
    app.sql(SLOW_COMMIT)
    async with app.open(replicas=[]) as db:

        async def write() -> None:
            async with db.fresh() if fresh else nullcontext():
                await db.run_write(lambda session: session.execute(INSERT) and None)

        writing = asyncio.create_task(write())
        sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
        sleeps += "AND datname = current_database()"
        await until(lambda: app.sql(sleeps) == "1")
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert "whether it was committed is unknown" in text_of_cancelled(caplog, app)


async def test_a_commit_is_cancelled_after_its_answer(
    app: App, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled while the server is queried for its position: the record says "committed"."""
    app.sql("CREATE TABLE notes (id int)")

    def cancelled(driver: Driver, connection: Any) -> Position:
        writing.cancel()
        return position_of_commit(driver, connection)

    monkeypatch.setattr(commits, "position_of_commit", cancelled)
    async with app.open(replicas=[]) as db:

        async def write() -> None:
            async with db.fresh():
                await db.run_write(lambda session: session.execute(INSERT) and None)

        writing = asyncio.create_task(write())
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert app.sql("SELECT count(*) FROM notes") == "1"
        assert "it is committed" in text_of_cancelled(caplog, app)
        await db.run_write(lambda session: session.execute(INSERT) and None)
    assert len(records(caplog, events.CommitCancelled)) == 1

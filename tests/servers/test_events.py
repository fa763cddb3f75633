"""Events of servers, where they really happen: a record has its level and all its fields."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import fields

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sa_sqlite_pool.reporting import events
from sa_sqlite_pool.reporting.events import Event
from tests.postgresql import App, until


def records(caplog: pytest.LogCaptureFixture, event: type[Event]) -> list[logging.LogRecord]:
    return [one for one in caplog.records if vars(one).get("event") == event.name]


async def test_a_replica_goes_and_comes_back(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """One record when it is found not to answer, and one when it answers again."""
    caplog.set_level(logging.INFO, logger="sa_sqlite_pool")
    replica = app.cluster.replicas[0]
    async with app.open(replicas=[app.url(replica)]) as db:
        replica.stop()
        try:
            for _ in range(3):
                with suppress(DBAPIError):  # where a connection is at rest that is broken
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

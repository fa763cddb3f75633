"""A database on a server is closed by another loop after its own event loop has been closed."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.dead_loops import bury, die, wait_for_ever
from tests.postgresql import App, until
from tests.servers.doing import ONE


# A closed loop's transport can never be closed, and warns whenever it is garbage collected.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("kind", ["writer_engine", "reader_engine"])
def test_closing_does_not_wait_for_a_loop_that_died(
    app: App, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its tasks release nothing; connections in use and at rest are closed without log records."""
    db = app.open(close_timeout=60, replicas=app.replica_urls[:1])

    async def main() -> None:
        await db.open()
        async with getattr(db, kind).connect() as connection:
            await connection.execute(ONE)
            await wait_for_ever()

    dead = die(main)
    asyncio.run(asyncio.wait_for(db.close(), 10))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    for server in app.cluster.servers:
        asyncio.run(until_gone(app, server))
    bury(dead)


def test_a_loop_that_died_while_it_connected(app: App) -> None:
    """A connection that was being opened never is; the database is closed all the same."""
    dying: list[asyncio.Task[None]] = []

    async def connect(**_: object) -> None:
        dying[0].ready.set()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    db = app.open(replicas=[], close_timeout=60, connect_args={"async_creator_fn": connect})

    async def main() -> None:
        dying.append(asyncio.current_task())  # type: ignore[arg-type]
        await db.open()

    dead = die(main)
    asyncio.run(asyncio.wait_for(db.close(), 10))
    bury(dead)


async def until_gone(app: App, server: object) -> None:
    """Wait until the server has noticed the end of all connections except the querying one."""
    await until(lambda: app.sql(_CONNECTIONS, server) == "1")  # type: ignore[arg-type]


_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"

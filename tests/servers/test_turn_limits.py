"""Waiting for another process's turn is limited by write_timeout, not by limits of statements."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import ServerDatabase, StatementTimeout, WriteTimeout
from sa_sqlite_pool.servers import turn
from sa_sqlite_pool.servers.drivers.interface import row_of
from tests.postgresql import App, until
from tests.servers.doing import LONG, ONE, at_once
from tests.servers.freezing import nothing_left, pools

SETTINGS = text("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")

WAITERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND wait_event = 'advisory' AND clock_timestamp() - query_start > '0.1 s'"
)

OF = pytest.mark.parametrize("of", ["the option", "the database"])


def limited(app: App, of: str, seconds: float, **options: Any) -> ServerDatabase:
    """Return a database whose statements may run for ``seconds``, set in the way ``of`` names."""
    if of == "the option":
        return app.open(statement_timeout=seconds, replicas=[], **options)
    app.sql(f"ALTER DATABASE {app.database} SET statement_timeout = {int(seconds * 1000)}")
    return app.open(replicas=[], **options)


@OF
async def test_a_limit_of_statements_is_none_of_the_wait(app: App, of: str) -> None:
    """A turn is acquired after that limit, and the limit applies to the statements that follow."""
    async with app.open(replicas=[]) as other, limited(app, of, 1) as db, nothing_left(db):

        async def write() -> Any:
            async with db.write() as session:
                return tuple((await session.execute(SETTINGS)).one())

        async with other.write() as session:
            await session.execute(ONE)
            writing = asyncio.create_task(write())
            long_since = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event = 'advisory' AND clock_timestamp() - query_start > '1.2 s'"
            )
            await until(lambda: writing.done() or app.sql(long_since) != "0")
            assert not writing.done()
        assert await writing == ("1s", "0")
        waits = db.statistics().turn.waits_for_processes
        assert (waits.waited, waits.cancelled, waits.timed_out) == (1, 0, 0)


@OF
async def test_write_timeout_ends_the_wait(app: App, of: str) -> None:
    """It does so although it is longer; the error names the holder, and the settings are kept."""
    async with app.open(replicas=[]) as other, limited(app, of, 1, write_timeout=1.4) as db:
        async with nothing_left(db), other.write() as session:
            await session.execute(text("SELECT 'the holder'"))
            with pytest.raises(WriteTimeout, match=r"waited 1\.40 s .* PID \d+ of .*the holder"):
                await at_once(db)
        async with db.write() as session:
            assert tuple((await session.execute(SETTINGS)).one()) == ("1s", "0")


async def test_the_wait_for_a_checkout_counts_once(app: App) -> None:
    """A later transaction of the same checkout has the full write_timeout, as on SQLite."""
    async with (
        app.open(replicas=[]) as other,
        app.open(replicas=[], write_timeout=20) as db,
        db.writer_engine.connect() as connection,
    ):
        (permit,) = pools(db)[0].checked_out.permits.values()
        permit.seconds_waited = 20  # as if it had waited in line for so long
        async with connection.begin():
            await connection.execute(ONE)

        async def write() -> None:
            async with connection.begin():
                await connection.execute(ONE)

        async with other.write() as session:
            await session.execute(ONE)
            writing = asyncio.create_task(write())
            await until(lambda: writing.done() or app.sql(WAITERS) != "0")
        await writing


async def test_statements_are_limited_after_a_wait(app: App) -> None:
    """The server limits them, as without a wait."""
    async with app.open(replicas=[]) as other, app.open(replicas=[], statement_timeout=1) as db:

        async def write() -> None:
            async with db.write() as session:
                await session.execute(LONG)

        async with other.write() as session:
            await session.execute(ONE)
            writing = asyncio.create_task(write())
            await app.someone_waits_for("advisory")
        with pytest.raises(StatementTimeout, match="pg_sleep"):
            await writing


async def test_what_the_turn_costs(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs one round trip if it is free, and four if another process holds it."""
    asked: list[str] = []

    def noted(proxied: Any, sql: str) -> Any:
        asked.append(sql)
        return row_of(proxied, sql)

    async with app.open(replicas=[]) as other, app.open(replicas=[], statement_timeout=9) as db:
        await at_once(db)
        monkeypatch.setattr(turn, "row_of", noted)
        await at_once(db)
        assert len(asked) == 1
        del asked[:]
        async with other.write() as session:
            await session.execute(ONE)
            assert len(asked) == 1
            writing = asyncio.create_task(at_once(db))
            await app.someone_waits_for("advisory")
        await writing
        assert len(asked) == 1 + 4

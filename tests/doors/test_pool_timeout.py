"""``pool_timeout``: omitted, None, and numbers that are too large for a timer."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import (
    ConfigurationError,
    SQLiteDatabase,
    WalSettings,
    WriterPool,
)
from sa_sqlite_pool.pools.base import FairPool
from sa_sqlite_pool.settings import LONGEST_SECONDS, check_timeout
from sa_sqlite_pool.turn.file_turn import FileTurn
from tests.cancelling import some_laps
from tests.conftest import MakeEngine
from tests.helpers import ONE_CONNECTION, UPDATE_FIRST, amounts, create_items, driver, until
from tests.waiting import put_forward

HOUR = 3600.0
AN_HOUR = {"write_timeout": HOUR, "read_timeout": HOUR}


def pool_of(engine: AsyncEngine) -> FairPool:
    assert isinstance(engine.pool, FairPool)
    return engine.pool


async def wait_behind_another(engine: AsyncEngine) -> None:
    """Let one task hold the only connection for longer than the engine's other time-outs."""
    waiting = pool_of(engine)

    async def use() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async with engine.connect():
        task = asyncio.ensure_future(use())
        await until(lambda: waiting.waiting or task.done())
        put_forward(2 * HOUR)
        await some_laps()
    await task


@pytest.mark.parametrize("door", ONE_CONNECTION)
async def test_none_waits_as_long_as_it_takes(make_engine: MakeEngine, door: str) -> None:
    """It waits as in SQLAlchemy's pools, and so does the pool that replaces it on ``dispose()``."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(**ONE_CONNECTION[door], **AN_HOUR, pool_timeout=None)
    await wait_behind_another(engine)
    await engine.dispose()
    await wait_behind_another(engine)


@pytest.mark.parametrize("door", ONE_CONNECTION)
async def test_not_given_is_the_other_time_out(make_engine: MakeEngine, door: str) -> None:
    """The default is ``write_timeout`` for writers and ``read_timeout`` otherwise."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(**ONE_CONNECTION[door], **AN_HOUR)
    with pytest.raises(exc.TimeoutError, match=r"waited 3600\.00 s"):
        await wait_behind_another(engine)


async def test_a_checkout_without_limit_leaves_the_limit_of_the_write(
    path: Any, make_engine: MakeEngine
) -> None:
    """A writer that has waited long has the same time limit for another process as any other."""
    engine = make_engine(WriterPool, pool_timeout=None, write_timeout=30.0)
    await create_items(engine)
    has_it = FileTurn(str(path)).acquire_nowait()
    assert has_it is not None

    async def write() -> None:
        async with engine.begin() as connection:
            checkout = (await driver(connection)).executor.transaction.permit
            assert checkout is not None
            assert checkout.seconds_waited == 0.0
            await connection.execute(UPDATE_FIRST)

    async with engine.connect():
        task = asyncio.ensure_future(write())
        await until(lambda: pool_of(engine).waiting)
    has_it.release()
    await task
    assert await amounts(engine) == [1, 0, 0]


# -- the longest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [math.inf, 1e12, 10**400, LONGEST_SECONDS + 1])
def test_what_no_timer_counts_is_the_longest(seconds: float) -> None:
    """The maximum is 24 days: in whole milliseconds, the largest value of SQLite's int."""
    assert check_timeout("write_timeout", seconds) == LONGEST_SECONDS
    assert int(LONGEST_SECONDS * 1000) < 2**31


@pytest.mark.parametrize("seconds", [math.nan, -1, -math.inf, "5", True])
def test_what_is_no_time(seconds: Any) -> None:
    """An invalid value is refused by name."""
    with pytest.raises(ConfigurationError, match="write_timeout must be a number of seconds ≥ 0"):
        check_timeout("write_timeout", seconds)


@pytest.mark.parametrize("seconds", [0, 0.5, 30, LONGEST_SECONDS])
def test_ordinary_ones_stay(seconds: float) -> None:
    assert check_timeout("write_timeout", seconds) == seconds


@pytest.mark.parametrize("seconds", [math.inf, 1e12])
@pytest.mark.parametrize("door", ONE_CONNECTION)
async def test_every_time_out_at_once(make_engine: MakeEngine, door: str, seconds: float) -> None:
    """Every door accepts it, even the raw connection, for which SQLite itself waits."""
    await create_items(make_engine(WriterPool))
    names = ["pool_timeout", "write_timeout", "read_timeout", "statement_timeout", "idle_warning"]
    names += ["slow_wait_warning", "slow_statement_warning"]
    engine = make_engine(**ONE_CONNECTION[door], **dict.fromkeys(names, seconds))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"), execution_options={"statement_timeout": seconds})
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        async with raw.execute("PRAGMA busy_timeout") as cursor:
            assert await cursor.fetchone() == (int(LONGEST_SECONDS * 1000),)
    await wait_behind_another(engine)


async def test_the_facade(path: Any) -> None:
    """Closing and checkpoints accept it, too."""
    db = SQLiteDatabase(
        path,
        write_timeout=math.inf,
        read_timeout=math.inf,
        close_timeout=math.inf,
        wal=WalSettings(reader_gap=1e12, max_snapshot_age=math.inf),
    )
    async with db:
        await create_items(db.writer_engine)
        await db.checkpoint(timeout=math.inf)
        assert await db.run_write(lambda session: session.scalar(text("SELECT 1"))) == 1

"""DML on aiosqlite's connection itself: ``sqlite3`` begins a transaction for it, as on stock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.cancelling import some_laps
from tests.helpers import turn_of, until

from .doors import FACADE, Application, Door

MANY = ("INSERT INTO t VALUES (?)", [(number,) for number in range(100)])
ONE = "INSERT INTO t VALUES (1)"
COUNT = "SELECT count(*) FROM t"


async def opened(door: Door) -> Application:
    app = await door.open()
    await app.write("CREATE TABLE t (x)")
    return app


async def raw_of(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


async def test_rolled_back_there(door: Door) -> None:
    app = await opened(door)
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        await raw.execute(ONE)
        await raw.rollback()
        await raw.commit()
    assert await app.value(COUNT) == 0


async def test_a_block_that_fails_rolls_all_rows_back(door: Door) -> None:
    """Many rows are one transaction, which SQLAlchemy ends."""
    app = await opened(door)

    async def insert() -> None:
        async with app.writer.begin() as connection:
            await (await raw_of(connection)).executemany(*MANY)
            raise LookupError

    with pytest.raises(LookupError):
        await insert()
    assert await app.value(COUNT) == 0


async def test_a_block_commits_all_rows(door: Door) -> None:
    """This holds beside SQLAlchemy's statements on the same connection, before and after."""
    app = await opened(door)
    async with app.writer.begin() as connection:
        raw = await raw_of(connection)
        await connection.execute(text(ONE))
        await raw.executemany(*MANY)
        await connection.execute(text(ONE))
        await raw.execute(ONE)
    assert await app.value(COUNT) == 103
    async with app.writer.begin() as connection:
        raw = await raw_of(connection)
        await raw.execute(ONE)
        await connection.execute(text(ONE))
    assert await app.value(COUNT) == 105


async def test_what_is_not_committed_is_not_kept(door: Door) -> None:
    """The next checkout of the connection finds no transaction of it."""
    app = await opened(door)
    async with app.writer.connect() as connection:
        await (await raw_of(connection)).execute(ONE)
    async with app.writer.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(ONE))
    assert await app.value(COUNT) == 1


@pytest.mark.parametrize("raw_first", [False, True])
async def test_autocommit(door: Door, raw_first: bool) -> None:
    """SQLAlchemy's isolation level applies to the raw connection, whichever was requested first."""
    app = await opened(door)
    async with app.writer.connect() as connection:
        raw = await raw_of(connection) if raw_first else None
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        raw = raw or await raw_of(connection)
        await raw.execute(ONE)
        await raw.rollback()
    assert await app.value(COUNT) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_within_a_savepoint(door: Door, end: str) -> None:
    """Even as the connection's first statement, it contains the raw connection's rows."""
    app = await opened(door)
    async with app.writer.connect() as connection:
        savepoint = await connection.begin_nested()
        await (await raw_of(connection)).execute(ONE)
        await getattr(savepoint, end)()
        await connection.execute(text(ONE))
        await connection.commit()
    assert await app.value(COUNT) == (2 if end == "commit" else 1)


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT a"])
async def test_an_open_transaction_of_autocommit_stays_open(door: Door, begin: str) -> None:
    """``sqlite3`` commits when ``isolation_level`` is set to None, even if it was None before."""
    app = await opened(door)
    async with app.writer.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(begin))
        await connection.execute(text(ONE))
        raw = await raw_of(connection)
        await raw.execute(ONE)
        assert (await connection.execute(text(COUNT))).scalar() == 2
        await connection.execute(text("ROLLBACK"))
    assert await app.value(COUNT) == 0


async def test_its_own_isolation_level(door: Door) -> None:
    """A level that the application sets on the raw connection applies; on stock for ever."""
    app = await opened(door)
    async with app.writer.connect() as connection:
        raw = await raw_of(connection)
        raw.isolation_level = None
        await raw_of(connection)
        await raw.execute(ONE)
        await raw.rollback()
    assert await app.value(COUNT) == 1
    if door.stock:
        return
    async with app.writer.connect() as connection:
        await connection.execute(text(ONE))
        await (await raw_of(connection)).rollback()
        await connection.commit()
    assert await app.value(COUNT) == 1


@pytest.mark.parametrize("commits", [False, True])
async def test_closed_without_a_greenlet(door: Door, commits: bool) -> None:
    """close() of ``engine.raw_connection()`` raises nothing, and the engine stays usable."""
    app = await opened(door)
    proxied = await app.writer.raw_connection()
    raw: Any = proxied.driver_connection
    await raw.execute(ONE)
    if commits:
        await raw.commit()
    proxied.close()
    assert await app.value(COUNT) == int(commits)
    await app.write(ONE)
    assert await app.value(COUNT) == 1 + int(commits)


@pytest.mark.parametrize("before", [None, COUNT, "SAVEPOINT a"])
async def test_its_lock_is_not_waited_for_with_the_turn(door: Door, before: str | None) -> None:
    """One task has SQLite's lock by the raw connection; another holds the turn and waits for it."""
    app = await opened(door)
    locked = asyncio.Event()

    async def first() -> None:
        async with app.writer.begin() as connection:
            if before is not None:
                await connection.execute(text(before))
            await (await raw_of(connection)).execute(ONE)
            locked.set()
            await until_it_waits()
            await connection.execute(text(ONE))

    async def second() -> None:
        await locked.wait()
        await app.write(ONE)

    async def until_it_waits() -> None:
        if door.stock:  # SQLite waits, in a thread
            return await some_laps()
        turn = turn_of(app.path)
        await until(lambda: turn.waiting or (turn.holder and turn.holder.task is writing))
        return None

    writing = asyncio.create_task(second())
    await asyncio.wait_for(asyncio.gather(first(), writing), 5)
    assert await app.value(COUNT) == 3


async def test_what_a_function_sets_does_not_stay(door: Door) -> None:
    """AUTOCOMMIT is the engine's again after a function had the raw connection."""
    if door.kind != FACADE:
        return
    app = await opened(door)

    def set_level(connection: Any) -> None:
        connection.connection.driver_connection.isolation_level = ""

    await app.db.run_write_core(set_level)
    await app.db.run_read_core(set_level)
    for engine in app.engines:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            if engine is app.writer:
                await connection.execute(text(ONE))
    assert await app.value(COUNT) == 1

"""Tasks that share a connection run one after the other, as in the stock driver's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool, WriteTimeout
from tests.conftest import MakeEngine
from tests.doors.turns import turn_taken
from tests.helpers import (
    UPDATE_FIRST,
    SleepingFunction,
    amounts,
    create_items,
    driver,
    turn_of,
    until,
    until_free,
)

COUNT = text("SELECT count(*) FROM items a, items b")


async def read(connection: AsyncConnection) -> int:
    return int((await connection.execute(COUNT)).scalar_one())


async def write(connection: AsyncConnection) -> None:
    await connection.execute(UPDATE_FIRST)


async def nested(connection: AsyncConnection) -> None:
    await connection.execute(text("UPDATE items SET amount = amount WHERE id = 2"))


async def scratch(connection: AsyncConnection) -> None:
    await connection.execute(text("CREATE TEMP TABLE IF NOT EXISTS scratch (i)"))
    await connection.execute(text("INSERT INTO scratch VALUES (1)"))


Work = Callable[[AsyncConnection], Coroutine[Any, Any, Any]]


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool, ReaderPool])
@pytest.mark.parametrize("placement", ["auto", "thread", "inline"])
async def test_gathered_reads(make_engine: MakeEngine, poolclass: type, placement: str) -> None:
    """The first task begins the transaction, and only once."""
    await create_items(make_engine(WriterPool))
    engine = make_engine(poolclass, placement=placement)
    async with engine.connect() as connection:
        assert await asyncio.gather(*(read(connection) for _ in range(8))) == [9] * 8
        await connection.rollback()
        assert await asyncio.gather(*(read(connection) for _ in range(8))) == [9] * 8


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool])
async def test_gathered_writes(make_engine: MakeEngine, poolclass: type, path: Path) -> None:
    """There are one BEGIN IMMEDIATE and one turn, and all writes are kept."""
    engine = make_engine(poolclass)
    await create_items(engine)
    work: list[Work] = [write, read, nested, scratch, write, read, scratch, write]
    async with engine.begin() as connection:
        await asyncio.gather(*(one(connection) for one in work))
    assert await amounts(engine) == [3, 0, 0]
    await until_free(path)


async def test_those_that_wait_for_the_turn_wait_in_order(swap_in: AsyncEngine, path: Path) -> None:
    """One task requests the turn; the others wait behind it without requesting it."""
    await create_items(swap_in)
    done: list[int] = []

    async def step(connection: AsyncConnection, number: int) -> None:
        await write(connection)
        done.append(number)

    async with swap_in.begin() as connection:
        async with turn_taken(path) as asked:
            tasks = [asyncio.create_task(step(connection, number)) for number in range(4)]
            await until(lambda: turn_of(path).waiting == 1)
            for _ in range(20):
                await asyncio.sleep(0)
            assert asked() == 1
        await asyncio.gather(*tasks)
    assert done == [0, 1, 2, 3]
    assert await amounts(swap_in) == [4, 0, 0]


async def test_an_error_is_that_of_one_task(swap_in: AsyncEngine, path: Path) -> None:
    """The gate is released however a statement ends."""
    await create_items(swap_in)

    async def fail(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT * FROM nowhere"))

    async with swap_in.begin() as connection:
        work = [write(connection), fail(connection), read(connection), fail(connection)]
        found = await asyncio.gather(*work, write(connection), return_exceptions=True)
    assert [isinstance(one, Exception) for one in found] == [False, True, False, True, False]
    assert await amounts(swap_in) == [2, 0, 0]


async def test_a_time_out_in_line(make_engine: MakeEngine, path: Path) -> None:
    """Each task behind it has the full time limit, from the moment when it becomes the first."""
    engine = make_engine(SQLitePool, write_timeout=0.05)
    await create_items(engine)
    async with turn_taken(path), engine.connect() as connection:
        work = [write(connection) for _ in range(3)]
        found = await asyncio.gather(*work, return_exceptions=True)
        assert [type(one) for one in found] == [WriteTimeout] * 3
        assert await read(connection) == 9


@pytest.mark.parametrize("poolclass", [SQLitePool, WriterPool, ReaderPool])
async def test_who_is_cancelled_at_the_gate(
    make_engine: MakeEngine, poolclass: type, path: Path
) -> None:
    """SQLAlchemy discards the connection; no task waits for ever, and no turn stays acquired."""
    function = SleepingFunction()
    await create_items(make_engine(WriterPool))
    engine = make_engine(poolclass, on_connect=function.on_connect)
    async with engine.connect() as connection:
        sleeping = asyncio.create_task(connection.execute(text("SELECT sleep()")))
        await until(function.inside.is_set)
        raw = await driver(connection)
        others = [asyncio.create_task(read(connection)) for _ in range(3)]
        await until(lambda: len(raw.executor._gate.waiting) == 3)
        others[1].cancel()
        await asyncio.wait([others[1]], timeout=0)
        function.leave.set()
        found = await asyncio.gather(sleeping, *others, return_exceptions=True)
        assert isinstance(found[2], asyncio.CancelledError)
        assert not raw.executor._gate.busy
    await until_free(path)
    async with engine.connect() as connection:
        assert await read(connection) == 9


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_at_any_step(swap_in: AsyncEngine, path: Path, steps: int) -> None:
    """If one of several is cancelled, the connection works, or another takes its place."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        raw = await driver(connection)
        tasks = [asyncio.create_task(write(connection)) for _ in range(4)]
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not raw.executor._gate.busy
        assert not raw.executor._gate.waiting
    await until_free(path)
    async with swap_in.begin() as connection:
        await write(connection)
    assert (await amounts(swap_in))[0] == 1


async def test_commit_while_another_task_executes(swap_in: AsyncEngine, path: Path) -> None:
    """COMMIT follows the running statement in the same thread; then the turn is free."""
    await create_items(swap_in)
    async with swap_in.connect() as connection:
        await write(connection)
        await asyncio.gather(read(connection), connection.commit())
        await connection.rollback()
        await until_free(path)
    assert await amounts(swap_in) == [1, 0, 0]

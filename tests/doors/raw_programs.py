"""Programs of a child that would hang for ever, with all its threads, if it failed."""

from __future__ import annotations

import asyncio
import threading
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import SQLitePool
from sa_sqlite_pool.turn.file_turn import FileTurn
from tests.helpers import UPDATE_FIRST, SleepingFunction, amounts, create_items, until


def works_beside_itself(pipe: Pipe, path: Path, cancelled: bool, others_write: bool) -> None:
    """Work on the raw connection through a Python function; report the final content."""
    asyncio.run(_work_beside_itself(pipe, path, cancelled, others_write))


async def _work_beside_itself(pipe: Pipe, path: Path, cancelled: bool, others_write: bool) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool)
    await create_items(engine)
    other = FileTurn(str(path)) if others_write else None
    await _work(engine, cancelled, other)
    pipe.send((await amounts(engine))[0])
    await engine.dispose()


async def _work(engine: AsyncEngine, cancelled: bool, other: FileTurn | None) -> None:
    inside, leave = threading.Event(), threading.Event()

    def step() -> bool:
        inside.set()
        return leave.wait(20)

    async with engine.connect() as connection:
        for _ in range(3):  # on the loop, so a progress handler is set
            await connection.execute(text("SELECT 1"))
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.create_function("step", 0, step)
        stepping = asyncio.create_task(raw.execute_fetchall("SELECT step()"))
        await until(inside.is_set)
        if cancelled:  # aiosqlite's call ends; its statement continues
            stepping.cancel()
            await asyncio.wait([stepping])
        request = None if other is None else other.acquire_nowait()
        going_on = asyncio.create_task(connection.execute(UPDATE_FIRST))
        for _ in range(10):
            await asyncio.sleep(0)
        leave.set()
        if request is not None:
            for _ in range(10):
                await asyncio.sleep(0)
            request.release()
        await going_on
        if not cancelled:
            assert list(await stepping) == [(True,)]
        assert await connection.scalar(text("SELECT 1")) == 1
        await connection.commit()


def registers_beside_a_statement(pipe: Pipe, path: Path) -> None:
    """Register a function on the raw connection while a statement runs; report its result."""
    asyncio.run(_register_beside_a_statement(pipe, path))


async def _register_beside_a_statement(pipe: Pipe, path: Path) -> None:
    function = SleepingFunction()
    options: dict[str, Any] = {"poolclass": SQLitePool, "on_connect": function.on_connect}
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **options)
    # With two connections, statements run in a thread other than the raw connection's own.
    async with engine.connect(), engine.connect() as connection:
        proxied = await connection.get_raw_connection()
        sleeping = asyncio.create_task(connection.execute(text("SELECT sleep()")))
        await until(function.inside.is_set)
        raw = proxied.driver_connection
        assert raw is not None
        registering = asyncio.create_task(raw.create_function("seven", 0, lambda: 7))
        for _ in range(10):
            await asyncio.sleep(0)
        function.leave.set()
        await sleeping
        await registering
        pipe.send(await connection.scalar(text("SELECT seven()")))
    await engine.dispose()

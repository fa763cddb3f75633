"""The program of a child that would hang for ever, with all its threads, if it failed."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import SQLitePool
from tests.helpers import SleepingFunction, create_items, until


def streams_beside_a_statement(pipe: Pipe, path: Path) -> None:
    """Stream on one connection in two tasks; report how many rows each has read."""
    asyncio.run(_stream_beside_a_statement(pipe, path))


async def _stream_beside_a_statement(pipe: Pipe, path: Path) -> None:
    function = SleepingFunction()
    options: dict[str, Any] = {"poolclass": SQLitePool, "on_connect": function.on_connect}
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **options)
    await create_items(engine)
    # With two connections, statements run in a thread other than the connection's own.
    async with engine.connect(), engine.connect() as connection:
        items = text("SELECT * FROM items")
        stream = await connection.stream(items, execution_options={"yield_per": 1})
        sleeping = asyncio.create_task(connection.execute(text("SELECT sleep()")))
        await until(function.inside.is_set)
        fetching = asyncio.create_task(stream.fetchall())
        for _ in range(10):
            await asyncio.sleep(0)
        function.leave.set()
        rows = await asyncio.gather(fetching, sleeping)
        pipe.send([len(rows[0]), rows[1].scalar()])
    await engine.dispose()

"""The program of a process that starts beside others: it opens a file that may not exist yet."""

from __future__ import annotations

import asyncio
import time
from multiprocessing.connection import Connection
from pathlib import Path

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tests.helpers import Base, Item
from tests.programs import Door

ROWS = 3


def start(pipe: Connection, door: str, database: Path, gate: Connection) -> None:
    """Send ``ready``, open and write when ``gate`` is closed, and send the seconds that took."""
    pipe.send("ready")
    gate.poll(None)
    begin = time.monotonic()
    asyncio.run(_open_and_write(door, database))
    pipe.send(time.monotonic() - begin)


async def _open_and_write(name: str, database: Path) -> None:
    door = Door(name, str(database))
    await door.open()
    async with door.claim() as writer:
        connection = await writer.connection() if isinstance(writer, AsyncSession) else writer
        await _create_tables(connection)
    for _ in range(ROWS):
        async with door.write() as writer:
            await writer.execute(insert(Item))
    async with door.read() as reader:
        assert await reader.scalar(select(func.count()).select_from(Item)) >= ROWS
    await door.close()


async def _create_tables(connection: AsyncConnection) -> None:
    """Create missing tables in one transaction, so none is created between check and creation."""
    await connection.run_sync(Base.metadata.create_all)

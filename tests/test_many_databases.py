"""A database for each tenant: the cost of an open one, as stated in docs/troubleshooting.md."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from tests.children import SECONDS, Child, needs_fork_server
from tests.helpers import Base, Item

DATABASES = 10

pytestmark = [
    needs_fork_server,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc lists the descriptors"),
]


@pytest.mark.parametrize(
    ("door", "descriptors", "threads"),
    [("SQLitePool", 7, 1), ("SQLiteDatabase", 12, 3), ("publish_status=False", 9, 2)],
)
def test_what_each_costs(tmp_path: Path, door: str, descriptors: int, threads: int) -> None:
    """The costs of a database with one connection of each kind end when it is closed."""
    with Child(count, door, tmp_path) as child:
        before, opened, ended = child.hear(), child.hear(), child.hear()
    costs = tuple(most - few for most, few in zip(opened, before, strict=True))
    assert costs == (descriptors * DATABASES, threads * DATABASES)
    assert ended == before


def count(pipe: Connection, door: str, directory: Path) -> None:
    """Report the descriptors and threads of this process before, during and after databases open.

    Closed objects must not wait for the garbage collector, which runs late on a large heap.
    """
    gc.collect()
    gc.disable()
    paths = [directory / f"{number}.db" for number in range(DATABASES)]
    asyncio.run(_count_engines(pipe, paths) if door == "SQLitePool" else _count(pipe, door, paths))


async def _count_engines(pipe: Connection, paths: list[Path]) -> None:
    engines: list[AsyncEngine] = []
    pipe.send(_in_use())
    for path in paths:
        engines.append(create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool))
        await _create_tables(engines[-1])
        async with engines[-1].connect() as connection:
            await connection.execute(select(Item.id))
    pipe.send(_in_use())
    for engine in engines:
        await engine.dispose()
    pipe.send(_in_use_at_last())


async def _count(pipe: Connection, door: str, paths: list[Path]) -> None:
    databases: list[SQLiteDatabase] = []
    pipe.send(_in_use())
    for path in paths:
        databases.append(SQLiteDatabase(path, publish_status=door == "SQLiteDatabase"))
        await databases[-1].open()
        await _create_tables(databases[-1].writer_engine)
        async with databases[-1].read() as session:
            await session.execute(select(Item.id))
    pipe.send(_in_use())
    for database in databases:
        await database.close()
    pipe.send(_in_use_at_last())


async def _create_tables(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


def _in_use() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def _in_use_at_last() -> tuple[int, int]:
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(SECONDS)  # it has closed its connection, and is about to end
    return _in_use()

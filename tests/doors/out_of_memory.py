"""Programs for child processes, which limit SQLite's memory for the rest of their lives."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from tests.helpers import UPDATE_FIRST, amounts, create_items

_LITTLE = text("PRAGMA hard_heap_limit = 20000000")
_READ = text("SELECT length(randomblob(:bytes) || amount) FROM items WHERE id = 1")
_FEW, _MANY = {"bytes": 10}, {"bytes": 100_000_000}


def reads_too_much(pipe: Pipe, path: Path, placement: str) -> None:
    """Read too much in a transaction that has written, and report the outcome."""
    asyncio.run(_read_too_much(pipe, path, placement))


async def _read_too_much(pipe: Pipe, path: Path, placement: str) -> None:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", poolclass=SQLitePool, placement=placement
    )
    await create_items(engine)
    async with engine.connect() as connection:
        for _ in range(5):  # known to be short afterwards
            await connection.execute(_READ, _FEW)
        await connection.execute(_LITTLE)
        await connection.execute(UPDATE_FIRST)
        try:
            await connection.execute(_READ, _MANY)
        except MemoryError:
            pipe.send("out of memory")
        try:
            await connection.execute(UPDATE_FIRST)
        except DBAPIError as error:
            pipe.send(str(error.orig))
        await connection.rollback()
        await connection.execute(UPDATE_FIRST)
        await connection.commit()
    pipe.send((await amounts(engine))[0])
    await engine.dispose()


def a_function_reads_too_much(pipe: Pipe, path: Path) -> None:
    """Run a closure that runs out of memory, and continues as if nothing had happened."""
    asyncio.run(_run_functions(pipe, path))


async def _run_functions(pipe: Pipe, path: Path) -> None:
    def read_too_much(connection: Connection) -> None:
        connection.execute(UPDATE_FIRST)
        try:
            connection.execute(_READ, _MANY)
        except MemoryError:
            pipe.send("out of memory")
        connection.execute(UPDATE_FIRST)

    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        await db.run_write_core(lambda connection: connection.execute(_LITTLE).close())
        try:
            await db.run_write_core(read_too_much)
        except DBAPIError as error:
            pipe.send(str(error.orig))
        pipe.send((await amounts(db.reader_engine))[0])

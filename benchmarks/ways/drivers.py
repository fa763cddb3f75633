"""aiosqlite, aiosqlitepool and apsw as in their documentation: SQL as text, rows as tuples."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiosqlite
import apsw
import apsw.aio
from aiosqlitepool import SQLiteConnectionPool

from .base import Open, Way
from .engines import BUSY_TIMEOUT_S, Pragmas
from .settings import Settings, settings_by
from .steps import Operation, Step, as_run, drive_async

POOL_SIZE = 5
"""aiosqlitepool's default."""


async def _connect(database: Path, pragmas: Pragmas) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(database, timeout=BUSY_TIMEOUT_S)
    for name, value in pragmas.items():
        await connection.execute(f"PRAGMA {name} = {value}")
    return connection


async def _execute(connection: aiosqlite.Connection, step: Step) -> object:
    statement, parameters = as_run(step)
    if not isinstance(parameters, dict):
        await connection.executemany(statement.sql, parameters)
        return None
    cursor = await connection.execute(statement.sql, parameters)
    return await cursor.fetchall() if statement.returns_rows else cursor.rowcount


async def _read(connection: aiosqlite.Connection, operation: Operation, key: int) -> None:
    await drive_async(operation(key), partial(_execute, connection))


async def _write(connection: aiosqlite.Connection, operation: Operation, key: int) -> None:
    async def execute(step: Step) -> object:
        # Python's sqlite3 begins transactions implicitly, but not for a SELECT: what that reads
        # might no longer be true when it is written.
        if as_run(step).statement.returns_rows and not connection.in_transaction:
            await connection.execute("BEGIN IMMEDIATE")
        return await _execute(connection, step)

    try:
        await drive_async(operation(key), execute)
    except BaseException:
        await connection.rollback()
        raise
    await connection.commit()


async def _settings(connection: aiosqlite.Connection, pool: str, size: int) -> Settings:
    async def ask(sql: str) -> object:
        cursor = await connection.execute(sql)
        [(answer,)] = await cursor.fetchall()
        return answer

    return await settings_by(ask, pool, size)


class OneConnection:
    """All tasks share a connection; a writer uses it alone, since it has one transaction."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    async def read(self, operation: Operation, key: int) -> None:
        await _read(self._connection, operation, key)

    async def write(self, operation: Operation, key: int) -> None:
        async with self._turn:
            await _write(self._connection, operation, key)

    async def settings(self, *, writes: bool) -> Settings:
        del writes  # one connection for both
        return await _settings(self._connection, "one connection", 1)


class ConnectEachTime:
    """A connection is opened for each operation, and closed afterwards."""

    def __init__(self, database: Path, pragmas: Pragmas) -> None:
        self._database = database
        self._pragmas = pragmas

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiosqlite.Connection]:
        connection = await _connect(self._database, self._pragmas)
        try:
            yield connection
        finally:
            await connection.close()

    async def read(self, operation: Operation, key: int) -> None:
        async with self._connected() as connection:
            await _read(connection, operation, key)

    async def write(self, operation: Operation, key: int) -> None:
        async with self._connected() as connection:
            await _write(connection, operation, key)

    async def settings(self, *, writes: bool) -> Settings:
        del writes  # all connections are alike
        async with self._connected() as connection:
            return await _settings(connection, "a connection each time", 0)


class Pooled:
    """aiosqlitepool, used as its README does."""

    def __init__(self, pool: SQLiteConnectionPool, size: int) -> None:
        self._pool = pool
        self._size = size

    async def read(self, operation: Operation, key: int) -> None:
        async with self._pool.connection() as connection:
            await _read(connection, operation, key)

    async def write(self, operation: Operation, key: int) -> None:
        async with self._pool.connection() as connection:
            await _write(connection, operation, key)

    async def settings(self, *, writes: bool) -> Settings:
        del writes  # one pool for both
        async with self._pool.connection() as connection:
            return await _settings(connection, "aiosqlitepool", self._size)


class Apsw:
    """apsw's own asyncio connections: one for all tasks, which a writer uses alone.

    It contains its own SQLite, whose version may differ from Python's.
    """

    def __init__(self, connection: apsw.AsyncConnection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    async def _execute(self, step: Step) -> object:
        statement, parameters = as_run(step)
        if not isinstance(parameters, dict):
            await self._connection.executemany(statement.sql, parameters)
            return None
        cursor = await self._connection.execute(statement.sql, parameters)
        # Its cursors do not count changed rows, and asking the connection would be a hop.
        return await cursor.fetchall() if statement.returns_rows else None

    async def read(self, operation: Operation, key: int) -> None:
        await drive_async(operation(key), self._execute)

    async def write(self, operation: Operation, key: int) -> None:
        async with self._turn:
            await self._connection.execute("BEGIN IMMEDIATE")
            try:
                await drive_async(operation(key), self._execute)
            except BaseException:
                await self._connection.execute("ROLLBACK")
                raise
            await self._connection.execute("COMMIT")

    async def settings(self, *, writes: bool) -> Settings:
        del writes  # one connection for both
        return await settings_by(self._ask, "one connection", 1)

    async def _ask(self, sql: str) -> object:
        cursor = await self._connection.execute(sql)
        [(answer,)] = await cursor.fetchall()
        return answer


@asynccontextmanager
async def one_connection(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
    """Open aiosqlite with one connection for all."""
    connection = await _connect(database, pragmas)
    try:
        yield OneConnection(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def connect_each_time(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
    """Open aiosqlite with one connection per operation."""
    yield ConnectEachTime(database, pragmas)


def pooled(size: int = POOL_SIZE) -> Open:
    """Return aiosqlitepool with ``size`` connections."""

    @asynccontextmanager
    async def opened(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
        async with SQLiteConnectionPool(
            lambda: _connect(database, pragmas), pool_size=size
        ) as pool:
            yield Pooled(pool, size)

    return opened


@asynccontextmanager
async def of_apsw(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
    """Open apsw with one connection for all."""
    connection = await apsw.Connection.as_async(str(database))
    async with contextlib.aclosing(connection):
        for name, value in pragmas.items():
            await connection.execute(f"PRAGMA {name} = {value}")
        yield Apsw(connection)

"""Connections that are not plain ``sqlite3.Connection`` objects: other modules', and proxies."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import aiosqlite

MODULES = ["sqlite3", "pysqlite3", "sqlcipher3", "sqlean"]

Creator = Callable[[], Awaitable[aiosqlite.Connection]]


def creator_of(connect: Callable[[], Any]) -> Creator:
    """Return an ``async_creator=`` for connections that ``connect()`` opens in their own thread."""

    async def creator() -> aiosqlite.Connection:
        connection = aiosqlite.Connection(connect, iter_chunk_size=64)
        connection._thread.daemon = True
        return await connection

    return creator


class TracedCursor:
    """A cursor like those of tracers: it counts, and forwards everything."""

    def __init__(self, cursor: sqlite3.Cursor, traced: list[str]) -> None:
        vars(self).update(_cursor=cursor, _traced=traced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._cursor, name, value)

    def execute(self, sql: str, *arguments: Any) -> Any:
        self._traced.append(sql)
        return self._cursor.execute(sql, *arguments)

    def executemany(self, sql: str, *arguments: Any) -> Any:
        self._traced.append(sql)
        return self._cursor.executemany(sql, *arguments)


class TracedConnection:
    """A connection that is not an ``sqlite3.Connection``; its cursors are no ``sqlite3.Cursor``."""

    def __init__(self, connection: sqlite3.Connection, traced: list[str]) -> None:
        vars(self).update(_connection=connection, _traced=traced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._connection, name, value)

    def cursor(self, *arguments: Any) -> TracedCursor:
        return TracedCursor(self._connection.cursor(*arguments), self._traced)

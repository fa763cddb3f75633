"""Another database: a custom dialect, as registered by an application or a library.

``sqlite+threaded`` runs Python's ``sqlite3`` in threads, without aiosqlite and this package. Each
statement, COMMIT and ROLLBACK is awaited.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteExecutionContext
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util import await_only


def in_thread(function: Any, *args: Any) -> Any:
    return await_only(asyncio.to_thread(function, *args))


class Cursor:
    """A cursor that awaits its statements."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def execute(self, sql: str, parameters: Any = ()) -> None:
        in_thread(self._cursor.execute, sql, parameters)

    def executemany(self, sql: str, parameters: Any) -> None:
        in_thread(self._cursor.executemany, sql, parameters)

    def fetchmany(self, size: int | None = None) -> Any:
        return in_thread(self._cursor.fetchmany, size or 1)

    async def _async_soft_close(self) -> None:
        pass  # SQLAlchemy awaits this for cursors of an asynchronous dialect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class Connection:
    """A connection that awaits COMMIT and ROLLBACK."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def cursor(self) -> Cursor:
        return Cursor(self._connection.cursor())

    def commit(self) -> None:
        in_thread(self._connection.commit)

    def rollback(self) -> None:
        in_thread(self._connection.rollback)

    def terminate(self) -> None:
        self._connection.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class Module:
    """The DB-API of the dialect."""

    def connect(self, database: str, **options: Any) -> Connection:
        options["check_same_thread"] = False
        return Connection(in_thread(lambda: sqlite3.connect(database, **options)))

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)


class Context(SQLiteExecutionContext):
    def create_server_side_cursor(self) -> Any:
        return self._dbapi_connection.cursor()


class Dialect(SQLiteDialect_pysqlite):
    driver = "threaded"
    is_async = True
    supports_statement_cache = True
    supports_server_side_cursors = True
    has_terminate = True
    execution_ctx_cls = Context

    @classmethod
    def import_dbapi(cls) -> Any:
        return Module()

    @classmethod
    def get_pool_class(cls, url: Any) -> type[Pool]:
        return AsyncAdaptedQueuePool

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.terminate()


registry.register("sqlite.threaded", __name__, "Dialect")

"""``sqlite3`` called directly, without a thread: the least that a driver for asyncio could do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, ClassVar

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import await_only

READS, WRITES = "sqlite+least_reads", "sqlite+least_writes"
"""Dialects without any BEGIN, and with BEGIN IMMEDIATE."""

THREAD_READS, THREAD_WRITES = "sqlite+least_thread_reads", "sqlite+least_thread_writes"
"""Dialects with BEGIN and with BEGIN IMMEDIATE, for synchronous engines."""


async def _nothing() -> None:
    """Complete immediately when awaited."""


class _Cursor(sqlite3.Cursor):
    async def _async_soft_close(self) -> None:
        """Do nothing: SQLAlchemy awaits this for each result whose rows are not fetched yet."""


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Callable[..., Any] | None = None) -> Any:
        return super().cursor(factory or _Cursor)


class _Least(SQLiteDialect_pysqlite):
    """A dialect whose transactions start with the statement ``begin``, or none if it is empty.

    :param awaits: whether executing a statement awaits something, which completes at once.
        Otherwise, SQLAlchemy's asyncio classes raise an error; those of this package do not.
    """

    supports_statement_cache = True
    begin: ClassVar[str] = ""

    def __init__(self, awaits: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if awaits:
            self.do_execute = self._do_execute_and_await  # type: ignore[method-assign]

    def create_connect_args(self, url: Any) -> Any:
        arguments, options = super().create_connect_args(url)
        # By default, Python's sqlite3 begins transactions implicitly.
        return arguments, {**options, "isolation_level": None, "factory": _Connection}

    def do_begin(self, dbapi_connection: Any) -> None:
        if self.begin:
            dbapi_connection.cursor().execute(self.begin)

    def _do_execute_and_await(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        del context
        await_only(_nothing())
        cursor.execute(statement, parameters)


class Reads(_Least):
    """For asyncio: each statement has a snapshot of its own."""

    supports_statement_cache = True
    is_async = True


class Writes(_Least):
    """For asyncio: a transaction has the write lock from its beginning."""

    supports_statement_cache = True
    is_async = True
    begin = "BEGIN IMMEDIATE"


class ThreadReads(_Least):
    """For a thread: a transaction has one snapshot."""

    supports_statement_cache = True
    begin = "BEGIN"


class ThreadWrites(_Least):
    """For a thread: a transaction has the write lock from its beginning."""

    supports_statement_cache = True
    begin = "BEGIN IMMEDIATE"


for _name, _class in (
    (READS, Reads),
    (WRITES, Writes),
    (THREAD_READS, ThreadReads),
    (THREAD_WRITES, ThreadWrites),
):
    registry.register(_name.replace("+", "."), __name__, _class.__name__)

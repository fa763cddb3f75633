"""Helpers for programs that run in separate processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import ReaderPool, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.pools.base import FairPool

WAIT_SECONDS = 30.0  # for turns and locks

Use = Callable[[], AbstractAsyncContextManager[Any]]

CREATE = text("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
INSERT = text("INSERT INTO t VALUES (1)")
COUNT = text("SELECT count(*) FROM t")
# A millisecond in which SQLite's process-wide mutexes are acquired thousands of times.
BUSY = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000) "
    "SELECT sum(length(hex(zeroblob(200 + i % 9))) + (SELECT count(*) FROM t)) FROM n"
)


class Door:
    """One of the three doors of the package, all used alike."""

    def __init__(
        self,
        name: str,
        path: str,
        on_connect: Callable[[sqlite3.Connection], object] = id,
        **more: Any,
    ) -> None:
        self._on_connect = on_connect
        self.opened: list[int] = []  # the process ID of each physical connection
        url = f"sqlite+aiosqlite:///{path}"
        options: dict[str, Any] = {
            "write_timeout": WAIT_SECONDS,
            "read_timeout": WAIT_SECONDS,
            "on_connect": self._note,
            "slow_wait_warning": None,  # no output, however slow the machine is
            **more,
        }
        self.db: SQLiteDatabase | None = None
        self.write: Use
        self.claim: Use  # the same, holding the turn from the first statement on
        self.read: Use
        if name == "facade":
            self.db = SQLiteDatabase(url, **options)
            self.write, self.read = self.db.write, self.db.read
            self.claim = self.write
            self.engines = [self.db.writer_engine, self.db.reader_engine]
        elif name == "swap-in":
            engine = create_async_engine(url, poolclass=SQLitePool, **options)
            self.write, self.read = engine.begin, engine.connect
            self.claim = engine.execution_options(sqlite_role="writer").begin
            self.engines = [engine]
        else:
            writer = create_async_engine(url, poolclass=WriterPool, **options)
            reader = create_async_engine(url, poolclass=ReaderPool, **options)
            self.write, self.read = writer.begin, reader.connect
            self.claim = self.write
            self.engines = [writer, reader]

    @property
    def pools(self) -> list[FairPool]:
        return [engine.pool for engine in self.engines if isinstance(engine.pool, FairPool)]

    def _note(self, connection: sqlite3.Connection) -> None:
        self.opened.append(os.getpid())
        self._on_connect(connection)

    async def open(self) -> None:
        if self.db is not None:
            await self.db.open()

    async def prepare(self) -> None:
        """Open the door, create the table with one row, and use a connection of each kind."""
        await self.open()
        async with self.write() as writer:
            await writer.execute(CREATE)
        await self.add()
        await self.count()

    async def add(self) -> None:
        async with self.write() as writer:
            await writer.execute(INSERT)

    async def count(self) -> int:
        async with self.read() as reader:
            return int(await reader.scalar(COUNT))

    async def be_busy(self) -> None:
        async with self.read() as reader:
            await reader.execute(BUSY)

    async def add_and_count(self) -> int:
        await self.add()
        return await self.count()

    async def close(self) -> None:
        if self.db is not None:
            await self.db.close()
        for engine in self.engines:
            await engine.dispose()


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - what the tests read


def in_another_process(path: str, sql: str, *, timeout: float = 10) -> str:
    """Return SQLite's result for ``sql`` in a process that was not forked.

    ``timeout=0`` checks whether it is locked now; others may briefly be closing the file.
    """
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[3]))\n"
        "c.isolation_level = None\n"
        "try: print(*(c.execute(sys.argv[2]).fetchone() or ['done']))\n"
        "except sqlite3.OperationalError as error: print(error)"
    )
    command = [sys.executable, "-c", program, path, sql, str(timeout)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

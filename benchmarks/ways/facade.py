"""The facade of this package: its engines, sessions, and closures that run in one hop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, Executable
from sqlalchemy.orm import Session

from sa_sqlite_pool import PreparedRead, SQLiteDatabase

from .asynchronous import execute
from .base import Way
from .engines import Pragmas
from .settings import Settings, settings_of
from .steps import Operation, Run, Step, drive, drive_async
from .threads import execute as execute_in_thread


class _Facade:
    def __init__(self, db: SQLiteDatabase) -> None:
        self._db = db

    async def settings(self, *, writes: bool) -> Settings:
        engine = self._db.writer_engine if writes else self._db.reader_engine
        async with engine.connect() as connection:
            return await connection.run_sync(settings_of)


class Engines(_Facade):
    """Core: ``db.reader_engine.connect()`` and ``db.writer_engine.begin()``."""

    async def read(self, operation: Operation, key: int) -> None:
        async with self._db.reader_engine.connect() as connection:
            await drive_async(operation(key), partial(execute, connection))

    async def write(self, operation: Operation, key: int) -> None:
        async with self._db.writer_engine.begin() as connection:
            await drive_async(operation(key), partial(execute, connection))


class Blocks(_Facade):
    """``async with db.read()`` and ``async with db.write()``."""

    async def read(self, operation: Operation, key: int) -> None:
        async with self._db.read() as session:
            await drive_async(operation(key), partial(execute, session))

    async def write(self, operation: Operation, key: int) -> None:
        async with self._db.write() as session:
            await drive_async(operation(key), partial(execute, session))


class Closures(_Facade):
    """``db.run_read(fn)`` and ``db.run_write(fn)``, whose functions receive a ``Session``."""

    async def read(self, operation: Operation, key: int) -> None:
        await self._db.run_read(_do, operation, key)

    async def write(self, operation: Operation, key: int) -> None:
        await self._db.run_write(_do, operation, key)


class CoreClosures(_Facade):
    """The same, with a ``Connection``."""

    async def read(self, operation: Operation, key: int) -> None:
        await self._db.run_read_core(_do, operation, key)

    async def write(self, operation: Operation, key: int) -> None:
        await self._db.run_write_core(_do, operation, key)


def _do(on: Session | Connection, operation: Operation, key: int) -> None:
    drive(operation(key), partial(execute_in_thread, on))


@asynccontextmanager
async def engines(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
    """Open the way through connections of the facade's engines."""
    async with SQLiteDatabase(database, pragmas=pragmas) as db:
        yield Engines(db)


@asynccontextmanager
async def blocks(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
    """Open the way through sessions of the facade."""
    async with SQLiteDatabase(database, pragmas=pragmas) as db:
        yield Blocks(db)


@asynccontextmanager
async def closures(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
    """Open the way through functions of a session."""
    async with SQLiteDatabase(database, pragmas=pragmas) as db:
        yield Closures(db)


@asynccontextmanager
async def core_closures(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
    """Open the way through functions of a connection."""
    async with SQLiteDatabase(database, pragmas=pragmas) as db:
        yield CoreClosures(db)


class PreparedReads(Engines):
    """``db.prepare(statement)``, once for each statement; writes are as in :class:`Engines`."""

    def __init__(self, db: SQLiteDatabase) -> None:
        super().__init__(db)
        self._prepared: dict[Executable, PreparedRead] = {}

    async def read(self, operation: Operation, key: int) -> None:
        await drive_async(operation(key), self._execute)

    async def _execute(self, step: Step) -> object:
        assert isinstance(step, Run)
        assert isinstance(step.parameters, Mapping)
        prepared = self._prepared.get(step.statement.core)
        if prepared is None:
            prepared = self._db.prepare(step.statement.core)
            self._prepared[step.statement.core] = prepared
        return await prepared.all(**step.parameters)


@asynccontextmanager
async def prepared_reads(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
    """Open the way through prepared statements."""
    async with SQLiteDatabase(database, pragmas=pragmas) as db:
        yield PreparedReads(db)

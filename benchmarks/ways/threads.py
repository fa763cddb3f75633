"""Synchronous SQLAlchemy: in one thread, and in the threads of a pool under an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, CursorResult, Engine
from sqlalchemy.orm import Session

from .base import Open, OpenSync, SyncWay, Way
from .engines import Pragmas, synchronous
from .settings import Settings, settings_of
from .steps import Get, Operation, Step, drive

Make = Callable[[Path, Pragmas], Engine]


def execute(on: Connection | Session, step: Step) -> object:
    """Return the rows, or the number of changed rows; for a ``Get``, the object."""
    if isinstance(step, Get):
        assert isinstance(on, Session)
        return on.get(step.entity, step.key)
    result = on.execute(step.statement.core, step.parameters)
    if step.statement.returns_rows:
        return result.fetchall()
    return cast("CursorResult[Any]", result).rowcount


class _Engine:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def settings(self) -> Settings:
        with self._engine.connect() as connection:
            return settings_of(connection)


class Connections(_Engine):
    """Core: a connection is checked out for each operation and returned."""

    def read(self, operation: Operation, key: int) -> None:
        with self._engine.connect() as connection:
            drive(operation(key), partial(execute, connection))

    def write(self, operation: Operation, key: int) -> None:
        with self._engine.begin() as connection:
            drive(operation(key), partial(execute, connection))


class Sessions(_Engine):
    """ORM: a session for each operation."""

    def read(self, operation: Operation, key: int) -> None:
        with Session(self._engine) as session:
            drive(operation(key), partial(execute, session))

    def write(self, operation: Operation, key: int) -> None:
        with Session(self._engine) as session, session.begin():
            drive(operation(key), partial(execute, session))


class InThreads:
    """``asyncio.to_thread``, as many web applications use it with synchronous SQLAlchemy."""

    def __init__(self, way: SyncWay) -> None:
        self._way = way

    async def read(self, operation: Operation, key: int) -> None:
        await asyncio.to_thread(self._way.read, operation, key)

    async def write(self, operation: Operation, key: int) -> None:
        await asyncio.to_thread(self._way.write, operation, key)

    async def settings(self, *, writes: bool) -> Settings:
        del writes  # one engine for both
        return await asyncio.to_thread(self._way.settings)


def through(way: Callable[[Engine], SyncWay], make: Make = synchronous) -> OpenSync:
    """Return ``way`` over the engine that ``make`` creates."""

    @contextmanager
    def opened(database: Path, pragmas: Pragmas) -> Iterator[SyncWay]:
        engine = make(database, pragmas)
        try:
            yield way(engine)
        finally:
            engine.dispose()

    return opened


def in_threads(open_: OpenSync) -> Open:
    """Return the same, in the threads of a pool."""

    @asynccontextmanager
    async def opened(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
        with open_(database, pragmas) as way:
            yield InThreads(way)

    return opened

"""A statement compiled by SQLAlchemy and run directly by ``sqlite3``; its rows are SQLAlchemy's.

Each run takes one lap of the event loop, so other tasks can run.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ClauseElement, Engine, Executable, Row
from sqlalchemy.sql.compiler import SQLCompiler

from ..ways.base import Way
from ..ways.engines import Pragmas, synchronous
from ..ways.settings import Settings, settings_of
from ..ways.steps import Operation, Parameters, Run, Step, drive_async


class _Statement:
    """The state that SQLAlchemy has after it has compiled ``core`` and executed it once."""

    def __init__(self, core: Executable, engine: Engine, parameters: Mapping[str, Any]) -> None:
        assert isinstance(core, ClauseElement)
        compiled = core.compile(dialect=engine.dialect)
        assert isinstance(compiled, SQLCompiler)
        assert not compiled._bind_processors, "values go to the driver as they are"
        self._sql = str(compiled)
        self._names = tuple(compiled.positiontup or ())
        with engine.connect() as connection:
            metadata: Any = connection.execute(core, parameters)._metadata
        # The arguments with which a result makes rows.
        self._of_rows = metadata, metadata._effective_processors, metadata._key_to_index

    def run(self, connection: sqlite3.Connection, parameters: Mapping[str, Any]) -> list[Row[Any]]:
        cursor = connection.cursor()
        cursor.execute(self._sql, [parameters[name] for name in self._names])
        metadata, processors, keys = self._of_rows
        return [Row(metadata, processors, keys, values) for values in cursor.fetchall()]


class _Prepared:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._raw = engine.raw_connection()
        connection = self._raw.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        self._connection = connection
        self._statements: dict[Executable, _Statement] = {}

    async def read(self, operation: Operation, key: int) -> None:
        await drive_async(operation(key), self._execute)

    async def write(self, operation: Operation, key: int) -> None:
        raise NotImplementedError("it only reads")

    async def settings(self, *, writes: bool) -> Settings:
        del writes
        with self._engine.connect() as connection:
            return settings_of(connection)

    def close(self) -> None:
        self._raw.close()
        self._engine.dispose()

    async def _execute(self, step: Step) -> object:
        assert isinstance(step, Run)
        await asyncio.sleep(0)
        statement = self._statements.get(step.statement.core)
        if statement is None:
            statement = self._prepare(step.statement.core, step.parameters)
        return statement.run(self._connection, step.parameters)  # type: ignore[arg-type]

    def _prepare(self, core: Executable, parameters: Parameters) -> _Statement:
        assert isinstance(parameters, Mapping)
        self._statements[core] = _Statement(core, self._engine, parameters)
        return self._statements[core]


@asynccontextmanager
async def reads(database: Path, pragmas: Pragmas) -> AsyncIterator[Way]:
    """Open a way that prepares each statement at its first run."""
    prepared = _Prepared(synchronous(database, pragmas))
    try:
        yield prepared
    finally:
        prepared.close()

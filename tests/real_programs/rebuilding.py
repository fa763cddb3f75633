"""Tables, and a rebuild of one of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from .doors import Executor

TABLES = (
    "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
    "CREATE TABLE child (parent INTEGER REFERENCES parent ON DELETE CASCADE)",
    "INSERT INTO parent VALUES (1)",
    "INSERT INTO child VALUES (1)",
)


def enforce_on_connect(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def enforce(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON").close()


async def rebuild_parent(connection: Executor) -> None:
    await connection.execute(text("CREATE TABLE new (id INTEGER PRIMARY KEY, name)"))
    await connection.execute(text("INSERT INTO new (id) SELECT id FROM parent"))
    await connection.execute(text("DROP TABLE parent"))
    await connection.execute(text("ALTER TABLE new RENAME TO parent"))


def begin_of_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")


async def raw_connection(executor: Executor) -> Any:
    connection = executor
    if not isinstance(connection, AsyncConnection):
        connection = await connection.connection()
    return (await connection.get_raw_connection()).driver_connection

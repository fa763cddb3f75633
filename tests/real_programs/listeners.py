"""Typical actions of applications in SQLAlchemy's pool and engine events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from .doors import Listen


def executing(*statements: str, on: str = "connect", commits: bool = False) -> Listen:
    """Execute the statements on the driver's connection in that event of the pool."""

    def listen(engine: AsyncEngine) -> None:
        def execute(dbapi_connection: Any, *_: Any) -> None:
            cursor = dbapi_connection.cursor()
            for statement in statements:
                cursor.execute(statement)
                if cursor.description is not None:
                    cursor.fetchall()
            cursor.close()
            if commits:
                dbapi_connection.commit()

        event.listen(engine.sync_engine, on, execute)

    return listen


def executing_in_engine_connect(statement: str) -> Listen:
    """Apply the recipe for a pessimistic connection test, using SQLAlchemy's own connection."""

    def listen(engine: AsyncEngine) -> None:
        def execute(connection: Any) -> None:
            connection.scalar(text(statement))
            connection.rollback()

        event.listen(engine.sync_engine, "engine_connect", execute)

    return listen


def in_the_driver(function: Callable[[Any], Any], *, on: str = "connect") -> Listen:
    """Call an asynchronous function with aiosqlite's connection in that event."""

    def listen(engine: AsyncEngine) -> None:
        def run(dbapi_connection: Any, *_: Any) -> None:
            dbapi_connection.run_async(function)

        event.listen(engine.sync_engine, on, run)

    return listen


def nothing(_: AsyncEngine) -> None:
    """Register no listeners."""


# Actions before the application has the connection, by description.
BEFORE: dict[str, tuple[Listen, dict[str, Any]]] = {
    "pre-ping": (nothing, {"pool_pre_ping": True}),
    "connect-selects": (executing("SELECT 1"), {}),
    "checkout-selects": (executing("SELECT 1", on="checkout"), {}),
    "checkout-asks-pragma": (executing("PRAGMA user_version", on="checkout"), {}),
    "engine-connect-selects": (executing_in_engine_connect("SELECT 1"), {}),
    "connect-selects-from-table": (executing("SELECT count(*) FROM sqlite_master"), {}),
    "first-connect-selects": (executing("SELECT 1", on="first_connect"), {}),
    "checkout-sets-pragma": (executing("PRAGMA cache_size = -4000", on="checkout"), {}),
    "checkout-explains": (executing("EXPLAIN SELECT 1", on="checkout"), {}),
    "checkin-selects": (executing("SELECT 1", on="checkin"), {}),
    "reset-selects": (executing("SELECT 1", on="reset"), {}),
}

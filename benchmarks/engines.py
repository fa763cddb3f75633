"""The engines that are compared, each a function of the database file.

All get the same PRAGMAs, so that pools and drivers are compared and not SQLite's settings. Pool
sizes are each engine's own defaults: that is what people run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool

BUSY_TIMEOUT_S = 30

PRAGMAS: Mapping[str, str | int] = {
    "journal_mode": "WAL",
    "synchronous": "NORMAL",
    "foreign_keys": "ON",
    "cache_size": -16 * 1024,  # KiB
    "temp_store": "MEMORY",
}


def stock(database: Path) -> AsyncEngine:
    """SQLAlchemy's own, as its documentation and many blog posts advise to configure it."""
    return _stock(database, connect_args={"timeout": BUSY_TIMEOUT_S})


def stock_with_its_own_timeout(database: Path) -> AsyncEngine:
    """The same with the busy time-out that Python's ``sqlite3`` comes with: 5 seconds."""
    return _stock(database)


def _stock(database: Path, **options: Any) -> AsyncEngine:
    engine = create_async_engine(_url("sqlite+aiosqlite", database), **options)
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    return engine


def synchronous(database: Path) -> Engine:
    """The same without asyncio: what SQLAlchemy and SQLite take by themselves."""
    engine = create_engine(_url("sqlite", database), connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _set_pragmas)
    return engine


def readers(database: Path) -> AsyncEngine:
    """The reader engine of this package."""
    return _of_this_package(database, poolclass=ReaderPool)


def writer(database: Path) -> AsyncEngine:
    """The writer engine of this package."""
    return _of_this_package(database, poolclass=WriterPool)


def swap_in(database: Path) -> AsyncEngine:
    """The one engine for everything of this package."""
    return _of_this_package(database, poolclass=SQLitePool)


def _of_this_package(database: Path, **options: Any) -> AsyncEngine:
    return create_async_engine(_url("sqlite+aiosqlite", database), pragmas=PRAGMAS, **options)


def _url(driver: str, database: Path) -> URL:
    return URL.create(driver, database=str(database))


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for name, value in PRAGMAS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()

"""The engines that are compared, each a function of the database file.

All but one use the same PRAGMAs, to compare pools and drivers instead of SQLite's settings. Pool
sizes are each engine's own defaults unless the name says otherwise: that is what people run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import sa_sqlite_pool
from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool

BUSY_TIMEOUT_S = 30

Pragmas = Mapping[str, str | int]

PRAGMAS: Pragmas = {
    "journal_mode": "WAL",
    "synchronous": "NORMAL",
    "foreign_keys": "ON",
    "cache_size": -16 * 1024,  # KiB
    "temp_store": "MEMORY",
}


def stock(database: Path, pragmas: Pragmas = PRAGMAS, **options: Any) -> AsyncEngine:
    """Return SQLAlchemy's own engine, configured as its documentation and many blogs advise."""
    return _stock(database, pragmas, connect_args={"timeout": BUSY_TIMEOUT_S}, **options)


def stock_with_null_pool(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """Return the same, with a connection that is opened for each checkout, and closed."""
    return stock(database, pragmas, poolclass=NullPool)


def stock_with_one_connection(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """Return the same, with one connection, for which all tasks wait."""
    return stock(database, pragmas, pool_size=1, max_overflow=0)


def stock_with_large_pool(size: int) -> Callable[[Path, Pragmas], AsyncEngine]:
    """Return the same, with ``size`` connections."""
    return partial(stock, pool_size=size, max_overflow=0)


def stock_immediate(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """Return the same, with a BEGIN IMMEDIATE for each transaction: for those that read first."""
    engine = stock(database, pragmas)
    event.listen(engine.sync_engine, "begin", _begin_immediate)
    return engine


def stock_with_its_own_timeout(database: Path) -> AsyncEngine:
    """Return stock with the default busy time-out of Python's ``sqlite3``: 5 seconds."""
    return _stock(database, PRAGMAS)


def stock_as_it_comes(database: Path, _pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """Return a bare ``create_async_engine()``, with SQLite's own settings."""
    return create_async_engine(_url("sqlite+aiosqlite", database))


def _stock(database: Path, pragmas: Pragmas, **options: Any) -> AsyncEngine:
    engine = create_async_engine(_url("sqlite+aiosqlite", database), **options)
    event.listen(engine.sync_engine, "connect", setting(pragmas))
    return engine


def synchronous(database: Path, pragmas: Pragmas = PRAGMAS, **options: Any) -> Engine:
    """Return the same without asyncio: the cost of SQLAlchemy and SQLite alone."""
    connect_args = {"timeout": BUSY_TIMEOUT_S}
    engine = create_engine(_url("sqlite", database), connect_args=connect_args, **options)
    event.listen(engine, "connect", setting(pragmas))
    return engine


def synchronous_with_null_pool(database: Path, pragmas: Pragmas = PRAGMAS) -> Engine:
    """Return the same, with a connection that is opened for each checkout, and closed."""
    return synchronous(database, pragmas, poolclass=NullPool)


def synchronous_immediate(database: Path, pragmas: Pragmas = PRAGMAS) -> Engine:
    """Return a synchronous engine with BEGIN IMMEDIATE."""
    engine = synchronous(database, pragmas)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def readers(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """Return the reader engine of this package."""
    return _of_this_package(database, pragmas, poolclass=ReaderPool)


def writer(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """Return the writer engine of this package."""
    return _of_this_package(database, pragmas, poolclass=WriterPool)


def swap_in(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """Return this package's single engine for everything."""
    return _of_this_package(database, pragmas, poolclass=SQLitePool)


def drop_in(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """Return the same from this package's ``create_async_engine``, which reuses greenlets."""
    url = _url("sqlite+aiosqlite", database)
    return sa_sqlite_pool.create_async_engine(url, pragmas=pragmas)


def swap_in_for_writers(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """Return the same, with transactions that take the turn at once: for those that read first."""
    return swap_in(database, pragmas).execution_options(sqlite_role="writer")


def _of_this_package(database: Path, pragmas: Pragmas, **options: Any) -> AsyncEngine:
    return create_async_engine(_url("sqlite+aiosqlite", database), pragmas=pragmas, **options)


def _url(driver: str, database: Path) -> URL:
    return URL.create(driver, database=str(database))


def setting(pragmas: Pragmas) -> Callable[[Any, object], None]:
    """Return a listener for a pool's ``connect`` event that sets ``pragmas``."""

    def set_pragmas(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name} = {value}")
        cursor.close()

    return set_pragmas


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")

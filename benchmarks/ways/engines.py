"""The engines that are compared, each a function of the database file.

All but one get the same PRAGMAs, so that pools and drivers are compared and not SQLite's settings.
Pool sizes are each engine's own defaults where the name says nothing else: that is what people run.
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
    """SQLAlchemy's own, as its documentation and many blog posts advise to configure it."""
    return _stock(database, pragmas, connect_args={"timeout": BUSY_TIMEOUT_S}, **options)


def stock_with_null_pool(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """The same with a connection that is opened for each checkout, and closed."""
    return stock(database, pragmas, poolclass=NullPool)


def stock_with_one_connection(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """The same with one connection, for which all tasks wait."""
    return stock(database, pragmas, pool_size=1, max_overflow=0)


def stock_with_large_pool(size: int) -> Callable[[Path, Pragmas], AsyncEngine]:
    """The same with so many connections."""
    return partial(stock, pool_size=size, max_overflow=0)


def stock_immediate(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """The same with a BEGIN IMMEDIATE for each transaction: for those that read first."""
    engine = stock(database, pragmas)
    event.listen(engine.sync_engine, "begin", _begin_immediate)
    return engine


def stock_with_its_own_timeout(database: Path) -> AsyncEngine:
    """Stock with the busy time-out that Python's ``sqlite3`` comes with: 5 seconds."""
    return _stock(database, PRAGMAS)


def stock_as_it_comes(database: Path, _pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """``create_async_engine`` and nothing else: SQLite's own settings."""
    return create_async_engine(_url("sqlite+aiosqlite", database))


def _stock(database: Path, pragmas: Pragmas, **options: Any) -> AsyncEngine:
    engine = create_async_engine(_url("sqlite+aiosqlite", database), **options)
    event.listen(engine.sync_engine, "connect", setting(pragmas))
    return engine


def synchronous(database: Path, pragmas: Pragmas = PRAGMAS, **options: Any) -> Engine:
    """The same without asyncio: what SQLAlchemy and SQLite take by themselves."""
    connect_args = {"timeout": BUSY_TIMEOUT_S}
    engine = create_engine(_url("sqlite", database), connect_args=connect_args, **options)
    event.listen(engine, "connect", setting(pragmas))
    return engine


def synchronous_with_null_pool(database: Path, pragmas: Pragmas = PRAGMAS) -> Engine:
    """The same with a connection that is opened for each checkout, and closed."""
    return synchronous(database, pragmas, poolclass=NullPool)


def synchronous_immediate(database: Path, pragmas: Pragmas = PRAGMAS) -> Engine:
    """And with BEGIN IMMEDIATE."""
    engine = synchronous(database, pragmas)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def readers(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """The reader engine of this package."""
    return _of_this_package(database, pragmas, poolclass=ReaderPool)


def writer(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """The writer engine of this package."""
    return _of_this_package(database, pragmas, poolclass=WriterPool)


def swap_in(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """The one engine for everything of this package."""
    return _of_this_package(database, pragmas, poolclass=SQLitePool)


def drop_in(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """The same by this package's ``create_async_engine``, which reuses greenlets."""
    url = _url("sqlite+aiosqlite", database)
    return sa_sqlite_pool.create_async_engine(url, pragmas=pragmas)


def swap_in_for_writers(database: Path, pragmas: Pragmas = PRAGMAS) -> AsyncEngine:
    """The same where all transactions take the turn at once: those that read first."""
    return swap_in(database, pragmas).execution_options(sqlite_role="writer")


def _of_this_package(database: Path, pragmas: Pragmas, **options: Any) -> AsyncEngine:
    return create_async_engine(_url("sqlite+aiosqlite", database), pragmas=pragmas, **options)


def _url(driver: str, database: Path) -> URL:
    return URL.create(driver, database=str(database))


def setting(pragmas: Pragmas) -> Callable[[Any, object], None]:
    """A listener for a pool's ``connect`` that sets them."""

    def set_pragmas(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name} = {value}")
        cursor.close()

    return set_pragmas


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")

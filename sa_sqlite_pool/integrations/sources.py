"""The sources of metrics: a database of the facade, or an engine of the application's own."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from ..database import SQLiteDatabase
from ..errors import ConfigurationError, DatabaseClosedError, a_type
from ..files.urls import locate
from ..pools.base import FairPool
from ..pools.statistics import statistics
from ..stats.database import DatabaseStatistics

Monitored = SQLiteDatabase | AsyncEngine | Engine


@final
class Source:
    """A database or an engine, with the ``name`` that distinguishes it from others.

    That is the name of its file, unless another is given. A database is referred to weakly: after
    it was closed it may be opened again, by what still has it.
    """

    def __init__(self, monitored: Monitored, name: str | None) -> None:
        if isinstance(monitored, SQLiteDatabase):
            self._engine: Engine | None = None
            self._database: Callable[[], SQLiteDatabase | None] = weakref.ref(monitored)
            found = monitored.reader_engine.sync_engine
        else:
            self._engine = found = _checked(monitored)
            self._database = lambda: None
        # Exporters encode it, and one name in another encoding would fail all that they export.
        label = name or locate(found.url).label
        self.name = label.encode(errors="backslashreplace").decode()

    @property
    def engines(self) -> list[Engine]:
        """Its engines; none of a database that is garbage."""
        if self._engine is not None:
            return [self._engine]
        database = self._database()
        if database is None:
            return []
        return [database.reader_engine.sync_engine, database.writer_engine.sync_engine]

    def is_of(self, monitored: Monitored) -> bool:
        """Return whether this is the source of ``monitored``."""
        if isinstance(monitored, SQLiteDatabase):
            return self._database() is monitored
        return self._engine is _sync(monitored)

    def is_same(self, other: Source) -> bool:
        """Return whether both have the same engines and name."""
        return self.name == other.name and self.engines == other.engines

    def overlaps(self, other: Source) -> bool:
        """Return whether both have an engine in common."""
        return any(engine in other.engines for engine in self.engines)

    @property
    def is_gone(self) -> bool:
        """True if it is a database that is garbage."""
        return not self.engines

    @property
    def is_closed(self) -> bool:
        """True if it is a database that is closed, or being closed."""
        return self._engine is None and all(pool_of(engine).refuses for engine in self.engines)

    def statistics(self) -> DatabaseStatistics | None:
        """Return its statistics, or None if it is not open.

        An engine counts as open from its first connection on: before, it may not know its file, and
        would have to open a connection to determine it.
        """
        if self._engine is not None:
            return statistics(self._engine) if pool_of(self._engine).has_begun else None
        database = self._database()
        try:
            return None if database is None else database.statistics()
        except DatabaseClosedError:
            return None


def pool_of(engine: Engine) -> FairPool:
    """Return the current pool of ``engine``."""
    pool = engine.pool
    assert isinstance(pool, FairPool)
    return pool


def _sync(engine: AsyncEngine | Engine) -> Engine:
    return engine.sync_engine if isinstance(engine, AsyncEngine) else engine


def _checked(engine: AsyncEngine | Engine) -> Engine:
    found = _sync(engine)
    pool = found.pool if isinstance(found, Engine) else None
    if not isinstance(pool, FairPool):
        what = repr(engine) if pool is None else f"an engine with {a_type(pool)}"
        raise ConfigurationError(
            f"{what} cannot be monitored: give a SQLiteDatabase, or an engine made with "
            "poolclass=SQLitePool, ReaderPool or WriterPool"
        )
    return found

"""The sources of metrics: a database of the facade, or an engine of the application's own."""

from __future__ import annotations

from typing import final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from ..database import SQLiteDatabase
from ..errors import ConfigurationError, DatabaseClosedError
from ..files.urls import locate
from ..pools.base import FairPool
from ..pools.statistics import statistics
from ..stats.database import DatabaseStatistics

Monitored = SQLiteDatabase | AsyncEngine | Engine


@final
class Source:
    """A database or an engine, with the ``name`` that distinguishes it from others.

    By default, it is the name of its file.
    """

    def __init__(self, monitored: Monitored, name: str | None) -> None:
        if isinstance(monitored, SQLiteDatabase):
            self._database: SQLiteDatabase | None = monitored
            both = monitored.reader_engine, monitored.writer_engine
            self.engines = [engine.sync_engine for engine in both]
        else:
            self._database = None
            self.engines = [_checked(monitored)]
        # Exporters encode it, and one name that cannot be encoded would fail the whole export.
        found = name or locate(self.engines[0].url).label
        self.name = found.encode(errors="backslashreplace").decode()

    def is_of(self, monitored: Monitored) -> bool:
        """Return whether this is the source of ``monitored``."""
        if isinstance(monitored, SQLiteDatabase):
            return self._database is monitored
        return self._database is None and self.engines[0] is _sync(monitored)

    def overlaps(self, other: Source) -> bool:
        """Return whether both have an engine in common."""
        return any(engine in other.engines for engine in self.engines)

    @property
    def is_over(self) -> bool:
        """Whether this is a database that is permanently closed, or is being closed."""
        return self._database is not None and pool_of(self.engines[0]).refuses

    def statistics(self) -> DatabaseStatistics | None:
        """Return its statistics, or None if it is not open.

        An engine counts as open from its first connection on: before, it may not know its file, and
        would have to open a connection to determine it.
        """
        if self._database is None:
            return statistics(self.engines[0]) if pool_of(self.engines[0]).has_begun else None
        try:
            return self._database.statistics()
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
        what = repr(engine) if pool is None else f"an engine with a {type(pool).__name__}"
        raise ConfigurationError(
            f"{what} cannot be monitored: give a SQLiteDatabase, or an engine made with "
            "poolclass=SQLitePool, ReaderPool or WriterPool"
        )
    return found

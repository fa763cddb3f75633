"""Where the statistics of what is watched come from: this process, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeAlias

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from ...database import SQLiteDatabase
from ...errors import ConfigurationError
from ...pools.statistics import statistics
from .history import TakesStatistics

Watched: TypeAlias = SQLiteDatabase | AsyncEngine | Engine


def sources_of(watched: Watched | Mapping[str, Watched]) -> dict[str, TakesStatistics]:
    """Return a function for each database, by the name on the page: "" for one without.

    Raise :class:`~sa_sqlite_pool.ConfigurationError` for what has no statistics.
    """
    named = watched if isinstance(watched, Mapping) else {"": watched}
    if not named:
        raise ConfigurationError("live_page() needs a database: live_page(db, allow=...)")
    return {_checked(name): _source(one) for name, one in named.items()}


def _checked(name: object) -> str:
    if not isinstance(name, str):
        raise ConfigurationError(f"the name of a database on the live page is text, not {name!r}")
    return name


def _source(one: object) -> TakesStatistics:
    if isinstance(one, SQLiteDatabase):
        return one.statistics
    if isinstance(one, (AsyncEngine, Engine)):
        statistics(one)  # which refuses other pools
        return partial(statistics, one)
    raise ConfigurationError(
        "live_page() shows an SQLiteDatabase, or an AsyncEngine on a pool of this package, or a "
        f'dictionary of them by name ({{"shop": db, "jobs": engine}}), not {one!r}'
    )

"""The actual settings of a contender, queried from its own connection and pool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.pool import NullPool, Pool, QueuePool, StaticPool

_PRAGMAS = (
    "journal_mode",
    "synchronous",
    "busy_timeout",
    "foreign_keys",
    "cache_size",
    "temp_store",
    "mmap_size",
    "page_size",
    "wal_autocheckpoint",
)

# PRAGMAs that accept words and return numbers: https://www.sqlite.org/pragma.html
_WORDS: Mapping[str, tuple[str, ...]] = {
    "synchronous": ("OFF", "NORMAL", "FULL", "EXTRA"),
    "foreign_keys": ("OFF", "ON"),
    "temp_store": ("DEFAULT", "FILE", "MEMORY"),
}


_VERSION = "SELECT sqlite_version()"


@dataclass(frozen=True, slots=True)
class Settings:
    """One connection's PRAGMAs in SQLite's own units (``busy_timeout`` in ms), and its pool.

    ``max_overflow`` is the number of connections that the pool may open beyond ``pool_size``.
    """

    pool: str
    pool_size: int
    max_overflow: int
    pragmas: dict[str, str]
    sqlite: str
    """The version of SQLite: a driver may contain its own."""


def settings_of(connection: Connection) -> Settings:
    """Ask SQLite and the pool; nothing here is copied from what was configured."""
    pool = connection.engine.pool
    answers = {
        sql: connection.exec_driver_sql(sql).scalar_one() for sql in (_VERSION, *_questions())
    }
    return _settings(answers, type(pool).__name__, *_sizes(pool))


async def settings_by(
    ask: Callable[[str], Awaitable[object]], pool: str, pool_size: int
) -> Settings:
    """Do the same without SQLAlchemy; ``ask`` returns the single value of a single row."""
    answers = {sql: await ask(sql) for sql in (_VERSION, *_questions())}
    return _settings(answers, pool, pool_size, 0)


def _questions() -> Iterator[str]:
    return (f"PRAGMA {name}" for name in _PRAGMAS)


def _settings(
    answers: Mapping[str, object], pool: str, pool_size: int, max_overflow: int
) -> Settings:
    pragmas = {name: _in_words(name, answers[f"PRAGMA {name}"]) for name in _PRAGMAS}
    return Settings(pool, pool_size, max_overflow, pragmas, str(answers[_VERSION]))


def _in_words(pragma: str, answer: object) -> str:
    words = _WORDS.get(pragma)
    return str(answer) if words is None else words[int(str(answer))]


def _sizes(pool: Pool) -> tuple[int, int]:
    if isinstance(pool, NullPool):
        return 0, 0
    if isinstance(pool, StaticPool):
        return 1, 0
    assert isinstance(pool, QueuePool)
    return pool.size(), pool._max_overflow  # SQLAlchemy has no public name for it

"""What a contender really runs with, asked from its own connection and pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.pool import Pool, QueuePool

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

# Numbers that SQLite answers where it takes words: https://www.sqlite.org/pragma.html
_WORDS: Mapping[str, tuple[str, ...]] = {
    "synchronous": ("OFF", "NORMAL", "FULL", "EXTRA"),
    "foreign_keys": ("OFF", "ON"),
    "temp_store": ("DEFAULT", "FILE", "MEMORY"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """One connection's PRAGMAs in SQLite's own units (``busy_timeout`` in ms), and its pool.

    ``max_overflow`` is how many connections the pool may open beyond ``pool_size``.
    """

    pool: str
    pool_size: int
    max_overflow: int
    pragmas: dict[str, str]


def settings_of(connection: Connection) -> Settings:
    """Ask SQLite and the pool; nothing here is copied from what was configured."""
    pool = connection.engine.pool
    answers = {name: _ask(connection, name) for name in _PRAGMAS}
    return Settings(type(pool).__name__, *_sizes(pool), answers)


def _ask(connection: Connection, pragma: str) -> str:
    answer = connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()
    words = _WORDS.get(pragma)
    return str(answer) if words is None else words[int(answer)]


def _sizes(pool: Pool) -> tuple[int, int]:
    assert isinstance(pool, QueuePool)
    return pool.size(), pool._max_overflow  # SQLAlchemy tells it nowhere else

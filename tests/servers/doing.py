"""Operations on servers: short and long statements, an immediate write, a record of queries."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool.servers.database import ServerDatabase

ONE = text("SELECT 1")
LONG = text("SELECT pg_sleep(60)")
"""A statement that is cancelled before it ends."""


async def at_once(db: ServerDatabase) -> None:
    """Acquire the turn, and release it."""
    async with db.write() as session:
        await session.execute(ONE)


def questions_of(monkeypatch: pytest.MonkeyPatch, db: ServerDatabase) -> list[str]:
    """Return a list of future queries outside transactions, which ask servers for positions."""
    found: list[str] = []
    driver: Any = type(db.reader_engine.pool.driver)  # type: ignore[attr-defined]
    rows = driver.rows

    def noting(self: Any, connection: Any, sql: str) -> Any:
        found.append(sql)
        return rows(self, connection, sql)

    monkeypatch.setattr(driver, "rows", noting)
    return found

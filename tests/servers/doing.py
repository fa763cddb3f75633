"""What tests do on servers: the shortest statement, one that lasts, a write at once."""

from __future__ import annotations

from sqlalchemy import text

from sa_sqlite_pool.servers.database import ServerDatabase

ONE = text("SELECT 1")
LONG = text("SELECT pg_sleep(60)")
"""It is stopped before it ends."""


async def at_once(db: ServerDatabase) -> None:
    """Take the turn, and give it back."""
    async with db.write() as session:
        await session.execute(ONE)

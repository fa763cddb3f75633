"""What a database says it is."""

from __future__ import annotations

import sqlite3

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


async def describe(session: AsyncSession) -> str:
    """Its version, and what says whether a commit waits for the disk."""
    connection = await session.connection()
    if connection.dialect.name == "sqlite":
        journal_mode = await session.scalar(text("PRAGMA journal_mode"))
        synchronous = SYNCHRONOUS[int(await session.scalar(text("PRAGMA synchronous")))]
        version = sqlite3.sqlite_version
        return f"SQLite {version}, journal_mode={journal_mode}, synchronous={synchronous}"
    version = await session.scalar(text("SHOW server_version"))
    fsync = await session.scalar(text("SHOW fsync"))
    commits = await session.scalar(text("SHOW synchronous_commit"))
    return f"PostgreSQL {version}, fsync={fsync}, synchronous_commit={commits}"

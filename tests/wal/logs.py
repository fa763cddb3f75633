"""Logs that soon become large, and obstacles for their keeper."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import WalSettings
from sa_sqlite_pool.database_file import database_file
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.wal.keeper import WalKeeper

KIB = 1024
MIB = 1024 * KIB
SMALL = WalSettings(soft_limit=64 * KIB, hard_limit=256 * KIB, reader_gap=0.2)


class Owner(Protocol):
    """The source of sessions in tests: a facade, or engines."""

    writer_engine: AsyncEngine


def log_size(path: Path) -> int:
    log = Path(f"{path}-wal")
    return os.stat(log).st_size if log.exists() else 0


def keeper_of(path: Path) -> WalKeeper:
    location = Location(str(path))
    return database_file(location).keeper(location)


async def create_blobs(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE blobs (id INTEGER PRIMARY KEY, data BLOB)"))


async def write(engine: AsyncEngine, kib: int) -> None:
    """Add about this much to the log in one transaction."""
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO blobs (data) VALUES (zeroblob(:size))"), {"size": kib * KIB}
        )


async def count(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM blobs")) or 0)

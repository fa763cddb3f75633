"""Helpers for tests through the facade: writing, counting, and reading warnings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase, WalSettings

KIB = 1024
SOFT, HARD = 64 * KIB, 256 * KIB
SMALL = WalSettings(soft_limit=SOFT, hard_limit=HARD, reader_gap=0.2)
INSERT = text("INSERT INTO t (data) VALUES (randomblob(4000))")


async def add(db: SQLiteDatabase, rows: int = 1) -> None:
    """Add rows, in one transaction each."""
    for _ in range(rows):
        async with db.write() as session:
            await session.execute(INSERT)


async def count(db: SQLiteDatabase) -> int:
    async with db.read() as session:
        return int((await session.execute(text("SELECT count(*) FROM t"))).scalar_one())


async def pragma(db: SQLiteDatabase, name: str) -> object:
    """Return the value on the writer's connection."""
    async with db.writer_engine.connect() as connection:
        return (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()


def log_size(path: Path) -> int:
    """Return the size of the log file, 0 if there is none."""
    log = f"{path}-wal"
    return os.path.getsize(log) if os.path.exists(log) else 0


def said(caplog: pytest.LogCaptureFixture, part: str = "") -> list[str]:
    """Return the warnings of the package that contain ``part``."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "sa_sqlite_pool" and part in record.getMessage()
    ]

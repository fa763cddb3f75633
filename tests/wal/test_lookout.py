"""What is seen of the log, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.driver.log_file import LogSize, measure
from sa_sqlite_pool.wal import keeper, lookout

from .logs import SMALL, create_blobs, write


async def test_a_large_log_is_not_measured_after_every_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor between them: no pause of a slow machine is quiet."""
    monkeypatch.setattr(keeper, "QUIET_SECONDS", 60.0)
    monkeypatch.setattr(lookout, "_MEASURE_SECONDS", 10.0)
    measured: list[str] = []

    def note(log: str) -> LogSize:
        measured.append(log)
        return measure(log)

    monkeypatch.setattr(lookout, "measure", note)
    async with SQLiteDatabase(path, wal=SMALL) as db:
        await create_blobs(db.writer_engine)
        await write(db.writer_engine, 70)
        for _ in range(5):
            await write(db.writer_engine, 1)
        assert measured == [f"{path}-wal"]

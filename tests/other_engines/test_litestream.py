"""Litestream copies a database while SQLiteDatabase writes to it and moves its log."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from tests.postgresql import until

PROGRAM = shutil.which("litestream", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="litestream is not installed")

_CONFIGURATION = """
dbs:
  - path: {path}
    replica:
      type: file
      path: {copy}
      sync-interval: 50ms
"""


@dataclass
class Litestream:
    """The program, and its copy of a file."""

    path: Path
    restored: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def configuration(self) -> Path:
        return self.path.with_suffix(".yml")

    def start(self) -> None:
        self.configuration.write_text(
            _CONFIGURATION.format(path=self.path, copy=self.path.with_suffix(".copy"))
        )
        with self.path.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(PROGRAM), "replicate", "-config", self.configuration], stdout=log, stderr=log
            )

    def end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process = None

    def has(self, expected: list[tuple[int, bytes]]) -> bool:
        """Restore the copy; return whether it has exactly these rows and is intact."""
        self.restored += 1
        target = self.path.with_suffix(f".restored{self.restored}")
        arguments = ("restore", "-config", self.configuration, "-o", target, self.path)
        done = subprocess.run([str(PROGRAM), *arguments], capture_output=True, check=False)
        if done.returncode != 0 or not target.exists():
            return False
        return rows_of(target) == expected


def rows_of(path: Path) -> list[tuple[int, bytes]]:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute("SELECT id, value FROM entries ORDER BY id").fetchall()
    finally:
        connection.close()


@pytest.fixture
def litestream(tmp_path: Path) -> Iterator[Litestream]:
    program = Litestream(tmp_path / "app.db")
    yield program
    program.end(signal.SIGKILL)


async def write(db: SQLiteDatabase, number: int) -> None:
    async def one() -> None:
        async with db.write() as session:
            await session.execute(
                text("INSERT INTO entries (value) VALUES (:value)"), {"value": os.urandom(10_000)}
            )

    await asyncio.gather(*(one() for _ in range(number)))


@pytest.mark.filterwarnings("ignore")
async def test_the_copy_has_all_commits(litestream: Litestream) -> None:
    """Both move the log, and Litestream is killed and started again."""
    url = f"sqlite+aiosqlite:///{litestream.path}"
    async with SQLiteDatabase(url) as db:
        async with db.writer_engine.begin() as connection:
            await connection.execute(
                text("CREATE TABLE entries (id INTEGER PRIMARY KEY, value BLOB)")
            )
        litestream.start()
        await write(db, 1000)
        await until(lambda: asyncio.to_thread(litestream.has, rows_of(litestream.path)))
        litestream.end(signal.SIGKILL)
        await write(db, 1000)
        await db.checkpoint()
        litestream.start()
        await write(db, 1000)
        await until(lambda: asyncio.to_thread(litestream.has, rows_of(litestream.path)))
        log = db.statistics().wal
        assert log is not None
        assert log.last_checkpoint is not None
        assert log.limit is not None
        assert log.size < log.limit
    expected = rows_of(litestream.path)
    assert len(expected) == 3000
    litestream.end(signal.SIGINT)
    assert litestream.has(expected)

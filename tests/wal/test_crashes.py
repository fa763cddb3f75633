"""A log that a crash has left behind, and a full disk."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sa_sqlite_pool import SQLiteDatabase
from tests.wal.facade import SMALL, SOFT, add, count, log_size, said
from tests.wal.others import ROOT

MIB = 1024 * 1024

CRASH = """
import os, signal, sqlite3, sys
path, commits, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA synchronous = OFF")
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
insert = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) "
    "INSERT INTO t (data) SELECT zeroblob(4000) FROM n"
)
for _ in range(commits):
    connection.execute("BEGIN")
    connection.execute(insert, [rows])
    connection.execute("COMMIT")
connection.execute("PRAGMA cache_size = 10")
connection.execute("BEGIN")
connection.execute(insert, [rows])  # never committed, but spilled
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("commits", "rows", "size"),
    [(20, 10, 10 * SOFT), pytest.param(75, 1000, 290 * MIB, marks=pytest.mark.long)],
)
async def test_a_log_left_by_a_crash(
    path: Path, caplog: pytest.LogCaptureFixture, commits: int, rows: int, size: int
) -> None:
    """Opening recovers it: commits are present, uncommitted data is not, and the log is small."""
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(path), str(commits), str(rows)], check=False, timeout=100
    )
    assert done.returncode == -signal.SIGKILL
    assert log_size(path) > size
    async with SQLiteDatabase(path, wal=SMALL) as db:
        assert log_size(path) < SOFT
        assert await count(db) == commits * rows
        await add(db)
        assert await count(db) == commits * rows + 1
        async with db.writer_engine.connect() as connection:
            check = await connection.exec_driver_sql("PRAGMA integrity_check")
            assert check.scalar() == "ok"
    assert said(caplog) == []


FULL_DISK = """
import asyncio, logging, os, resource, sqlite3, sys
import sqlalchemy.exc
from sa_sqlite_pool import SQLiteDatabase
from sqlalchemy import text
from tests.wal.facade import SMALL, add, count, log_size
from tests.helpers import until

path = sys.argv[1]
LIMIT = 1024 * 1024  # the database is larger, the log never is
warnings = []

class Kept(logging.Handler):
    def emit(self, record):
        warnings.append(record.getMessage())

logging.getLogger("sa_sqlite_pool").addHandler(Kept())

async def main():
    async with SQLiteDatabase(path, wal=SMALL) as db:
        async with db.write() as session:
            await session.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)"))
            await session.execute(text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) "
                "INSERT INTO t (data) SELECT zeroblob(4000) FROM n"
            ))
        await db.checkpoint("truncate")
        assert os.path.getsize(path) > LIMIT
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
        while not warnings:
            await add(db)
            assert log_size(path) < LIMIT
        await add(db)
        rows = await count(db)
        print("warned", warnings[0])
        for mode in ("passive", "truncate"):
            try:
                await db.checkpoint(mode)
            except sqlalchemy.exc.OperationalError as error:
                print("sqlalchemy", type(error.orig).__name__, error.orig)
            except sqlite3.Error as error:
                print("sqlite3", type(error).__name__, error)
        await add(db)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print((await db.checkpoint("truncate")).outcome.value)
        print(await count(db) - rows, len(warnings))
    print(sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone()[0])

asyncio.run(main())
"""


def test_a_disk_that_is_full(path: Path) -> None:
    """Commits continue in the log, a warning says why it is not moved, and nothing is lost."""
    pytest.importorskip("resource", reason="there are no limits for files here")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=ROOT,
    )
    assert done.stderr == ""
    warned, *rest = done.stdout.splitlines()
    assert warned.startswith(
        "warned a checkpoint of app.db failed (disk I/O error); no committed data is lost"
    )
    assert rest == [
        "sqlalchemy OperationalError disk I/O error",
        "sqlalchemy OperationalError disk I/O error",
        "truncated",
        "1 1",
        "ok",
    ]

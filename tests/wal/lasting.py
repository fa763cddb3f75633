"""Databases whose locks were dropped, by a process that opens and closes the file itself."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

from sa_sqlite_pool.system.proc_locks import identity, locks
from tests.helpers import UPDATE_FIRST

_UPDATE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
connection.execute(sys.argv[2])
connection.close()
"""

# As PACKAGE in others.py, but a line may be "drop", and an error is an answer.
WORKER = """
import asyncio, sys
from sqlalchemy import text
from sa_sqlite_pool import SQLiteDatabase

async def main():
    async with SQLiteDatabase(sys.argv[1]) as db:
        print("ready", flush=True)
        for line in sys.stdin:
            if line.strip() == "drop":
                open(sys.argv[1], "rb").close()
                print("dropped", flush=True)
                continue
            try:
                async with db.write() as session:
                    await session.execute(text(line))
            except Exception as error:
                print(type(error).__name__, flush=True)
            else:
                print("committed", flush=True)

asyncio.run(main())
"""


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def found(path: Path) -> int:
    """What another program reads now; after a kill of this process nothing else would be left."""
    with closing(connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (amount,) = connection.execute("SELECT amount FROM items WHERE id = 1").fetchone()
    return int(amount)


def drop_locks(path: Path) -> None:
    """Read the file as a download of it does; its close drops the locks of this process."""
    path.read_bytes()


def update_elsewhere(path: Path, sql: str = str(UPDATE_FIRST)) -> None:
    """Another process writes, and removes the log if it takes its connection for the last one."""
    arguments = [sys.executable, "-c", _UPDATE, str(path), sql]
    subprocess.run(arguments, check=True, timeout=60)


def families(path: Path) -> list[str]:
    """The kinds of locks on the database, POSIX or OFDLCK."""
    return sorted(lock.family for lock in locks() if lock.file == identity(str(path)))

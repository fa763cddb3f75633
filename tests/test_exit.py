"""No hang: the interpreter exits, whatever was left open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LEFT_OPEN = {
    "an open database": "pass",
    "an open write transaction": """
    session = db.sessionmaker(role="writer")
    await session.execute(text("CREATE TABLE t (id)"))
    keep.append(session)""",
    "a running statement": """
    keep.append(asyncio.create_task(endless()))
    await asyncio.sleep(0.1)""",
    "waiters in line": """
    session = db.sessionmaker(role="writer")
    await session.execute(text("SELECT 1"))
    keep.append(session)
    keep.extend(asyncio.create_task(write()) for _ in range(3))
    await asyncio.sleep(0)""",
    "sys.exit in a task": "sys.exit(0)",
}

PROGRAM = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
from sqlalchemy import text
from sa_sqlite_pool import SQLiteDatabase

keep = []
db = SQLiteDatabase(sys.argv[1])

async def endless():
    async with db.read() as session:
        await session.execute(text(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        ))

async def write():
    async with db.write() as session:
        await session.execute(text("SELECT 1"))

async def main():
    await db.open()
    {body}

asyncio.run(main())
"""


@pytest.mark.parametrize("left_open", LEFT_OPEN)
def test_the_interpreter_exits(path: Path, left_open: str) -> None:
    """Nobody closed anything."""
    program = PROGRAM.replace("{body}", LEFT_OPEN[left_open])
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr

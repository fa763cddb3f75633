"""Files and directories that this user may not write. Root may write anything, so it steps down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import let_others_in

PROGRAM = """
import asyncio, os, sys
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
from sa_sqlite_pool import SQLiteDatabase

async def main():
    try:
        await SQLiteDatabase(sys.argv[1]).open()
    except Exception as error:
        print(type(error).__name__, error.orig)

asyncio.run(main())
"""


def open_as_nobody(path: Path) -> str:
    # Everything that is needed is imported while still root: the interpreter's own files may be
    # out of nobody's reach.
    program = "import sa_sqlite_pool, sqlalchemy.dialects.sqlite.aiosqlite\n" + PROGRAM
    return subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    let_others_in(tmp_path)
    return tmp_path


def test_a_read_only_directory(directory: Path) -> None:
    """WAL needs to write beside the file; the message says so, and nothing is created."""
    closed = directory / "closed"
    closed.mkdir(mode=0o555)
    output = open_as_nobody(closed / "app.db")
    assert output.startswith("OperationalError the directory ")
    assert "closed is not writable, and SQLite keeps the log" in output
    assert list(closed.iterdir()) == []


def test_a_read_only_file(directory: Path) -> None:
    """Says that it is the file's permissions."""
    shared = directory / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "app.db").touch(mode=0o444)
    assert "app.db is not readable and writable for this user" in open_as_nobody(shared / "app.db")

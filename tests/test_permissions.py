"""Files and directories that this user may not write to; root, who may, drops its privileges."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import SQLiteDatabase, SQLitePool, restore
from tests.helpers import let_others_in

PROGRAM = """
import asyncio, os, sys
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
from sa_sqlite_pool import SQLiteDatabase

async def main():
    try:
        db = SQLiteDatabase(sys.argv[1])
        await db.open()
        await db.backup(sys.argv[2])
    except Exception as error:
        print(type(error).__name__, error.orig)

asyncio.run(main())
"""


RESTORE = """
import asyncio, os, sys
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
from sa_sqlite_pool import SQLiteDatabase, restore

async def main():
    await restore(sys.argv[1], sys.argv[2])
    async with SQLiteDatabase(sys.argv[2]):
        print("open")

asyncio.run(main())
"""


def open_as_nobody(path: Path | str, copy: Path | str = "", program: str = PROGRAM) -> str:
    """Open the database, and make a backup of it; return the error's name and message."""
    # Import all necessary modules while still root: the user nobody may have no access to the
    # interpreter's own files.
    program = "import sa_sqlite_pool, sqlalchemy.dialects.sqlite.aiosqlite\n" + program
    return subprocess.run(
        [sys.executable, "-c", program, str(path), str(copy)],
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
    """WAL needs to write beside the file; the message says so, and no file is created."""
    closed = directory / "closed"
    closed.mkdir(mode=0o555)
    output = open_as_nobody(closed / "app.db")
    assert output.startswith("OperationalError the directory ")
    assert "closed is not writable, and SQLite keeps the log" in output
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize("query", ["", "?uri=true&mode=ro"])
def test_a_directory_that_may_not_be_entered(directory: Path, query: str) -> None:
    """SQLAlchemy's error, which names the directory, replaces the system's bare one."""
    closed = directory / "closed"
    (closed / "deep").mkdir(parents=True)
    closed.chmod(0)
    try:
        file = f"{'file:' if query else ''}{closed / 'deep' / 'app.db'}"
        output = open_as_nobody(f"sqlite+aiosqlite:///{file}{query}")
    finally:
        closed.chmod(0o700)
    assert output.startswith("OperationalError ")
    assert "deep/app.db cannot be reached: Permission denied; give this user access to " in output
    assert f"the directory {closed}, or correct the URL" in output  # not the directory below it
    assert list((closed / "deep").iterdir()) == []


@pytest.mark.parametrize("name", ["loop.db", "n" * 300])
async def test_a_name_that_leads_nowhere(tmp_path: Path, name: str) -> None:
    """Another kind of problem raises the same family of errors."""
    (tmp_path / "loop.db").symlink_to("loop.db")
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / name}", poolclass=SQLitePool)
    with pytest.raises(OperationalError, match="cannot be reached: "):
        await engine.connect()
    await engine.dispose()


def test_a_backup_in_a_read_only_directory(directory: Path) -> None:
    """The message names the directory, and what to do."""
    (directory / "open").mkdir()
    (directory / "open").chmod(0o777)
    (directory / "closed").mkdir(mode=0o555)
    output = open_as_nobody(directory / "open" / "app.db", directory / "closed" / "copy.db")
    assert "copy.db.unfinished cannot be created: Permission denied; make the directory " in output
    assert "closed writable by this user, or choose another path" in output
    assert list((directory / "closed").iterdir()) == []


def test_a_backup_that_is_read_only(directory: Path) -> None:
    """It is restored as a database that its owner may write."""
    open_ = directory / "open"
    open_.mkdir()
    open_.chmod(0o777)
    with closing(sqlite3.connect(open_ / "copy.db")) as connection:
        connection.execute("CREATE TABLE items (id)")
    (open_ / "copy.db").chmod(0o444)
    assert open_as_nobody(open_ / "copy.db", open_ / "app.db", RESTORE) == "open\n"
    assert stat.S_IMODE((open_ / "app.db").stat().st_mode) == 0o644


async def test_a_backup_that_may_not_be_reached(tmp_path: Path) -> None:
    """It is neither written nor read, and the error gives the reason."""
    away = tmp_path / ("n" * 300)
    async with SQLiteDatabase(tmp_path / "app.db") as db:
        with pytest.raises(OperationalError, match="cannot be reached: "):
            await db.backup(away)
    with pytest.raises(OperationalError, match="cannot be reached: "):
        await restore(away, tmp_path / "app.db")


def test_a_read_only_file(directory: Path) -> None:
    """The error reports the permissions of the file."""
    shared = directory / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "app.db").touch(mode=0o444)
    assert "app.db may not be read and written by this user" in open_as_nobody(shared / "app.db")

"""Connections opened where the database was deleted or replaced while it was open."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import exc, text

from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, files_beside
from tests.wal.test_replaced import another

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files in use cannot be moved there")


async def test_in_use_when_another_engine_comes(path: Path, make_engine: MakeEngine) -> None:
    """Its log would also be that of the new file."""
    first, second = make_engine(SQLitePool), make_engine(SQLitePool)
    await create_items(first)
    async with first.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM items")) == 3
        path.unlink()
        with pytest.raises(exc.OperationalError, match="still use the old file"):
            await create_items(second)
        assert await connection.scalar(text("SELECT count(*) FROM items")) == 3
    await create_items(second)
    assert await amounts(second) == [0, 0, 0]


async def test_the_old_log_beside_a_new_file(path: Path, make_engine: MakeEngine) -> None:
    """SQLite would apply it to the new file, which is refused while the log is there."""
    first, second = make_engine(SQLitePool), make_engine(SQLitePool)
    await create_items(first)
    content = another(path)
    for engine in (second, first, second):
        with pytest.raises(exc.OperationalError, match=r"delete .*app\.db-wal"):
            await create_items(engine)
    assert path.read_bytes() == content
    for name in ("app.db-wal", "app.db-shm"):
        path.with_name(name).unlink()
    await create_items(second)
    async with first.connect() as connection:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        assert (await connection.scalars(text(tables))).all() == ["items", "other"]


async def test_the_old_log_after_the_end_of_the_facade(path: Path) -> None:
    """SQLite leaves it in place when the last connection to the old file is closed."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        content = another(path)
    for _ in range(2):
        with pytest.raises(exc.OperationalError, match=r"delete .*app\.db-wal"):
            await SQLiteDatabase(path).open()
    assert path.read_bytes() == content
    for name in ("app.db-wal", "app.db-shm"):
        path.with_name(name).unlink()
    async with SQLiteDatabase(path) as db, db.read() as session:
        assert await session.scalar(text("SELECT name FROM sqlite_master")) == "other"


# -- harmless cases ------------------------------------------------------------------------------


async def test_an_engine_that_was_not_disposed_of(path: Path, make_engine: MakeEngine) -> None:
    """Tests remove the file, and create an engine on a new one; the old engine continues on it."""
    first, second = make_engine(SQLitePool), make_engine(SQLitePool)
    await create_items(first)
    path.unlink()
    await create_items(second, 2)
    for engine in (second, first, second):
        async with engine.begin() as connection:
            await connection.execute(UPDATE_FIRST)
    assert await amounts(second) == await amounts(first) == [3, 0]
    for engine in (first, second):
        await engine.dispose()
    with closing(sqlite3.connect(path)) as direct:
        assert direct.execute("SELECT amount FROM items").fetchall() == [(3,), (0,)]
        assert direct.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("closed", [False, True])
async def test_a_new_file_with_a_log_of_its_own(
    path: Path, make_engine: MakeEngine, closed: bool
) -> None:
    """It is a copy of another database and its log, whose last commits are found."""
    first, second = make_engine(SQLitePool), make_engine(SQLitePool)
    await create_items(first)
    for name in ("app.db", "app.db-wal", "app.db-shm"):
        path.with_name(name).unlink()
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE other (a)")
        for suffix in ("", "-wal"):
            shutil.copy(f"{other}{suffix}", f"{path}{suffix}")
    if closed:
        await first.dispose()
    async with second.connect() as new:
        assert await new.scalar(text("SELECT name FROM sqlite_master")) == "other"


async def test_a_new_log_with_the_number_of_the_old_one(
    path: Path, make_engine: MakeEngine
) -> None:
    """SQLite removes the old log beside an empty file, and the system reuses its inode number."""
    first, second = make_engine(SQLitePool), make_engine(SQLitePool)
    await create_items(first)
    path.unlink()
    await first.dispose()
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE other (a)")
        for suffix in ("", "-wal"):  # into the existing file
            shutil.copyfile(f"{other}{suffix}", f"{path}{suffix}")
    path.with_name("app.db-shm").unlink()
    async with second.connect() as new:
        assert await new.scalar(text("SELECT name FROM sqlite_master")) == "other"


async def test_the_log_of_another_program(path: Path, make_engine: MakeEngine) -> None:
    """It has recreated the file and uses it: its log is not the old one, and stays."""
    first, second = make_engine(SQLitePool), make_engine(SQLitePool)
    await create_items(first)
    for name in files_beside(path) - {f"{path.name}-turn"}:
        path.with_name(name).unlink()
    program = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for sql in ('PRAGMA journal_mode = WAL', 'CREATE TABLE items (id, amount)',"
        " 'INSERT INTO items VALUES (1, 5)'): connection.execute(sql)\n"
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for engine in (second, first):
            async with engine.begin() as connection:
                await connection.execute(UPDATE_FIRST)
        assert await amounts(first) == [7]
        other.communicate()

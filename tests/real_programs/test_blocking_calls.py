"""Tests with a detector of blocking calls; the fixture of docs/placement.md that allows ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("blockbuster")

PAGE = Path(__file__).parents[2] / "docs" / "placement.md"

TESTS = """
import asyncio
import os

import pytest
from blockbuster import BlockingError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sa_sqlite_pool import SQLiteDatabase, SQLitePool
from sa_sqlite_pool import create_async_engine as drop_in

WRITE = text("INSERT INTO notes (text) VALUES ('a')")
READ = text("SELECT text FROM notes WHERE id = 1")


def blocks(*_):
    with pytest.raises(BlockingError):
        os.stat(".")


async def use(writer, reader):
    async with writer.begin() as connection:
        await connection.execute(text("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)"))
    for _ in range(12):  # in the thread first, and then on the loop
        async with writer.begin() as connection:
            await connection.execute(WRITE)
            await connection.run_sync(blocks)
        async with reader.connect() as connection:
            assert (await connection.execute(READ)).scalar_one() == "a"
        blocks()


@pytest.mark.parametrize("make", [create_async_engine, drop_in])
@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///app.db"])
def test_engines(make, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = make(url, poolclass=SQLitePool)

    async def main():
        await use(engine, engine)
        await engine.dispose()

    asyncio.run(main())


def test_facade(tmp_path):
    async def main():
        async with SQLiteDatabase(tmp_path / "app.db") as db:
            await use(db.writer_engine, db.reader_engine)
            await db.run_write_core(lambda connection: connection.execute(WRITE))
            await db.backup(tmp_path / "copy.db")
            blocks()

    asyncio.run(main())
"""


@pytest.mark.parametrize("allowed", [True, False])
def test_what_a_detector_finds(allowed: bool, tmp_path: Path) -> None:
    """With the fixture, it finds the application's own calls; without it, ours as well."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    fixture = next(block for block in blocks if "BlockBuster" in block)
    assert 'OWN = {"app", "tests", "conftest"}' in fixture
    fixture = fixture.replace('"tests"', '"test_app"')
    if not allowed:
        fixture = fixture.replace(" or called_by_the_pool()", "")
    (tmp_path / "conftest.py").write_text(fixture)
    (tmp_path / "test_app.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", "test_app.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("5 passed" if allowed else "BlockingError") in done.stdout, done.stdout

"""The rows of a file in blocks: memory use does not grow with the file or its rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table
from sqlalchemy.dialects import postgresql

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.copying.source import BLOCK_BYTES, BLOCK_ROWS, Rows, snapshot
from sa_sqlite_pool.copying.tables import plan_copy
from sa_sqlite_pool.copying.transfer import Outgoing
from sa_sqlite_pool.doctor import Severity
from tests.backup.ledger import run_program
from tests.doctor.patients import found, healthy, on_linux

metadata = MetaData()
blobs = Table("blobs", metadata, Column("id", Integer, primary_key=True), Column("b", LargeBinary))


def fill(path: Path, rows: int, size: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, b BLOB)")
        values = ((bytes(size),) for _ in range(rows))
        connection.executemany("INSERT INTO blobs (b) VALUES (?)", values)


@pytest.mark.parametrize(("rows", "size"), [(20_000, 0), (10_000, 1_000), (100, 200_000)])
def test_a_block_has_a_size(tmp_path: Path, rows: int, size: int) -> None:
    """It contains many small rows or few large ones; each row is read exactly once."""
    fill(tmp_path / "app.db", rows, size)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        source = Rows(connection, "SELECT id, b FROM blobs")
        ids: list[int] = []
        while block := source.next():
            ids.extend(row[0] for row in block)
    assert ids == list(range(1, rows + 1))
    assert 1 < source.most <= BLOCK_ROWS
    assert source.most * size <= BLOCK_BYTES


@pytest.mark.parametrize("every", [1, 8])
def test_large_rows_after_small_ones(tmp_path: Path, every: int) -> None:
    """A block with such rows is not larger, whatever the previous blocks contained."""
    size = BLOCK_BYTES // 3
    fill(tmp_path / "app.db", 5_000, 0)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.executemany(
            "INSERT INTO blobs VALUES (?, ?)",
            ((i, bytes(size) if i % every == 0 else None) for i in range(5_001, 5_201)),
        )
        source = Rows(connection, "SELECT id, b FROM blobs")
        ids: list[int] = []
        while block := source.next():
            ids.extend(row[0] for row in block)
            assert sum(len(row[1] or b"") for row in block) <= BLOCK_BYTES
    assert ids == list(range(1, 5_201))


def test_rows_larger_than_a_block(tmp_path: Path) -> None:
    """They are read one at a time."""
    fill(tmp_path / "app.db", 5, BLOCK_BYTES + 1)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        source = Rows(connection, "SELECT id, b FROM blobs")
        sizes = [len(block) for block in iter(source.next, [])]
    assert sizes == [1] * 5


async def test_one_block_ahead(tmp_path: Path) -> None:
    """While a block is sent, the next one is read, but not a third one."""
    fill(tmp_path / "app.db", 30_000, 10)
    async with (
        SQLiteDatabase(tmp_path / "app.db") as db,
        snapshot(db, lambda done, total: None) as worker,
    ):
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        (plan,) = (await worker.run(lambda raw: plan_copy(raw, metadata, dialect))).tables
        outgoing, sent = Outgoing(worker, plan, lambda done: None), 0
        async for block in outgoing.blocks():
            sent += block.count(b"\n")
            await worker.run(lambda _: None)  # the previous jobs have ended
            assert sent <= outgoing.digest.rows <= sent + BLOCK_ROWS
    assert sent == 30_000


async def test_the_copy_of_the_file_has_no_name(tmp_path: Path) -> None:
    """It has none from the first read on, so nothing is left even if the process is killed."""
    fill(tmp_path / "app.db", 10, 10)
    async with (
        SQLiteDatabase(tmp_path / "app.db") as db,
        snapshot(db, lambda done, total: None) as worker,
    ):
        assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"app.db"}
        query = "SELECT count(*) FROM blobs"
        assert await worker.run(lambda raw: raw.execute(query).fetchone()) == (10,)


KILLED = """
import asyncio, os, signal, sys
from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.copying.source import snapshot

def progress(done, total):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with SQLiteDatabase(sys.argv[1]) as db, snapshot(db, progress):
        pass

asyncio.run(main())
"""


@on_linux
def test_what_a_kill_leaves_is_known(tmp_path: Path) -> None:
    """During the copy of the file, it leaves one file, which the doctor reports with a remedy."""
    path = tmp_path / "app.db"
    healthy(path)
    assert run_program(KILLED, path).returncode == -9
    (left,) = tmp_path.glob("app.db.copy-*")
    assert str(left) in found(path, "unfinished-copy", Severity.WARNING).message

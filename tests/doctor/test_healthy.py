"""Healthy databases: nothing is found, and nothing is changed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.doctor import Report, examine
from tests.doctor.patients import SCHEMA, WAL, execute, healthy, killed, numbers, on_linux
from tests.helpers import create_items
from tests.wal.others import OtherProcess


def examined(path: Path) -> Report:
    """Return the report, after checking that the files and the database's content are unchanged."""
    names, content = sorted(os.listdir(path.parent)), path.read_bytes()
    report = examine(path)
    assert sorted(os.listdir(path.parent)) == names
    assert path.read_bytes() == content
    return report


@pytest.mark.parametrize("keep_wal", [False, True])
async def test_of_the_facade(path: Path, keep_wal: bool) -> None:
    """A database of SQLiteDatabase is healthy while it is open and idle, and after it is closed."""
    async with SQLiteDatabase(path, keep_wal=keep_wal) as db:
        await create_items(db.writer_engine, 100)
        async with db.read() as session:
            await session.execute(text("SELECT count(*) FROM items"))
        assert examine(path).findings == ()
    report = examined(path)
    assert (report.findings, report.locks, report.worst) == ((), (), None)
    assert report.checked == "integrity_check"
    assert report.figures is not None
    assert report.figures.journal_mode == "wal"


def test_quick(path: Path) -> None:
    """``quick`` runs quick_check."""
    healthy(path)
    assert examine(path, quick=True).checked == "quick_check"


def test_made_with_sqlite3(path: Path) -> None:
    """A database in WAL mode, with all indexes that its schema needs, is healthy."""
    healthy(path)
    assert examined(path).findings == ()


def test_of_a_killed_process(path: Path) -> None:
    """Its log and the log's index are left behind, and SQLite takes care of both."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    report = examined(path)
    assert report.findings == ()
    assert report.log_bytes > 0


@on_linux
def test_in_use(path: Path) -> None:
    """Another process has the file open; its lock is in the report."""
    healthy(path)
    with OtherProcess(path) as other:
        assert other.execute("SELECT count(*) FROM parents") == "[(2,)]"
        report = examined(path)
        (lock,) = report.locks
        assert other.name == f"process {lock.pid} ({lock.program})"
    assert (report.findings, lock.lock) == ((), "shared")


def test_all_kinds_of_keys_with_indexes(path: Path) -> None:
    """Composite keys in another order, WITHOUT ROWID, the rowid and a partial index are healthy."""
    execute(
        path,
        WAL,
        "CREATE TABLE p (a, b, PRIMARY KEY (a, b))",
        "CREATE TABLE q (id INTEGER PRIMARY KEY, other INT UNIQUE)",
        "CREATE TABLE c (x, y, z, FOREIGN KEY (x, y) REFERENCES p (a, b))",
        "CREATE INDEX c_yx ON c (y, x, z)",
        "CREATE TABLE d (id INTEGER PRIMARY KEY REFERENCES q (id))",
        "CREATE TABLE e (id REFERENCES q (id), n, PRIMARY KEY (id, n)) WITHOUT ROWID",
        "CREATE TABLE f (Q_Id REFERENCES q (id))",
        "CREATE INDEX f_q ON f (q_id) WHERE q_id IS NOT NULL",
        "CREATE TABLE g (id INT PRIMARY KEY) WITHOUT ROWID",
        "CREATE VIRTUAL TABLE h USING fts5 (body)",
        'CREATE TABLE "odd ""name" (id INTEGER PRIMARY KEY, "a b" REFERENCES q (id))',
        'CREATE INDEX "odd ix" ON "odd ""name" ("a b")',
        "CREATE VIEW v AS SELECT * FROM c",
    )
    assert examined(path).findings == ()


def test_a_name_that_uris_and_shells_treat_otherwise(tmp_path: Path) -> None:
    """The name contains spaces, a percent sign, question and number signs, and quotes."""
    path = tmp_path / "50% of it's #1?.db"
    healthy(path)
    assert examined(path).findings == ()


def test_a_link(path: Path) -> None:
    """The log is beside the file to which the link points."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    link = path.parent / "link.db"
    link.symlink_to(path)
    report = examined(link)
    assert (report.findings, report.path) == ((), str(link))
    assert report.log_bytes > 0


def test_with_other_pages_and_some_free(path: Path) -> None:
    """The pages have 64 KiB, and few of them are free: less than a quarter."""
    execute(
        path,
        "PRAGMA page_size = 65536",
        WAL,
        *SCHEMA,
        f"{numbers(2000)} INSERT INTO parents SELECT i + 9, randomblob(9000) FROM n",
        "DELETE FROM parents WHERE id BETWEEN 10 AND 300",
    )
    report = examined(path)
    assert report.findings == ()
    assert report.figures is not None
    assert report.figures.free_pages > 0


async def test_locks_of_this_process_stay(path: Path) -> None:
    """An application may examine its own database: its transaction keeps SQLite's locks."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        async with db.write() as session:
            await session.execute(text("UPDATE items SET amount = 1"))
            assert examine(path).findings == ()
            with OtherProcess(path) as other:
                assert other.execute("PRAGMA busy_timeout = 0") == "[(0,)]"
                assert other.execute("BEGIN IMMEDIATE") == "database is locked"


@on_linux
def test_locks_of_this_process_stay_without_wal(path: Path) -> None:
    """They are on the database itself, and closing any descriptor of it would release them."""
    execute(path, *SCHEMA)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as own,
        OtherProcess(path) as other,
    ):
        own.execute("BEGIN IMMEDIATE")
        assert [finding.id for finding in examine(path).findings] == ["journal-mode"]
        assert other.execute("PRAGMA busy_timeout = 0") == "[(0,)]"
        assert other.execute("BEGIN IMMEDIATE") == "database is locked"


def test_progress(path: Path) -> None:
    """The callback is called repeatedly during the examination, which ends if it raises."""
    healthy(path)
    execute(path, f"{numbers(100_000)} INSERT INTO parents SELECT i + 9, 'x' FROM n")
    calls: list[None] = []
    assert examine(path, on_progress=lambda: calls.append(None)).findings == ()
    assert calls

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine(path, on_progress=stop)

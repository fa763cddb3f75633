"""Targets of a backup, and files that it refuses to replace."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from sa_sqlite_pool import (
    DatabaseInUseError,
    DatabaseNotUsableError,
    NotADatabaseError,
    SQLiteDatabase,
)
from sa_sqlite_pool.system.atomic_file import AtomicFile
from tests.backup import ledger
from tests.backup.held import Held
from tests.backup.ledger import entries
from tests.helpers import files_beside, until
from tests.wal.others import OtherProcess

ON_LINUX = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who has files open"
)


async def refused(
    db: SQLiteDatabase,
    target: Path,
    message: str,
    kind: type[sqlite3.Error] = DatabaseNotUsableError,
) -> None:
    """Check that a backup to ``target`` raises SQLAlchemy's error, and leaves all files as is."""
    names = files_beside(target) if target.parent.is_dir() else None
    before = target.read_bytes() if target.is_file() else None
    with pytest.raises(exc.DBAPIError, match=message) as raised:
        await db.backup(target)
    assert isinstance(raised.value.orig, kind)
    assert isinstance(raised.value, exc.DatabaseError)
    assert before == (target.read_bytes() if target.is_file() else None)
    assert names == (files_beside(target) if target.parent.is_dir() else None)


def make(path: Path, mode: str = "DELETE") -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE IF NOT EXISTS old (id)")


@pytest.mark.parametrize("by", ["path", "symbolic link", "hard link"])
async def test_the_database_itself(db: SQLiteDatabase, path: Path, copy: Path, by: str) -> None:
    """The database is recognized by any name."""
    if by == "symbolic link":
        copy.symlink_to(path)
    elif by == "hard link":
        os.link(path, copy)
    target = path if by == "path" else copy
    await refused(db, target, "is the database itself, or belongs to it")


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal", "-turn", "-line"])
async def test_what_belongs_to_the_database(path: Path, copy: Path, side: str) -> None:
    """This includes a journal that does not exist yet."""
    async with SQLiteDatabase(path, pragmas={"journal_mode": "DELETE"}) as db:
        await refused(db, Path(f"{path}{side}"), "is the database itself, or belongs to it")


async def test_the_lock_files_of_an_open_database(db: SQLiteDatabase, path: Path) -> None:
    """If they were replaced, processes would no longer wait for one another."""
    for side in ("-turn", "-line"):
        await refused(db, Path(f"{path}{side}"), "is the database itself, or belongs to it")


async def test_a_database_with_the_name_of_an_unfinished_copy(tmp_path: Path) -> None:
    """It is not mistaken for the leftover of a killed backup, and removed."""
    async with SQLiteDatabase(tmp_path / "copy.db.unfinished") as db:
        await ledger.create(db)
        await refused(db, tmp_path / "copy.db", "copy.db.unfinished has the name under which")
        await db.backup(tmp_path / "other.db")
    assert entries(tmp_path / "copy.db.unfinished") == entries(tmp_path / "other.db") == 0


async def test_a_directory(db: SQLiteDatabase, copy: Path) -> None:
    """A directory, and a missing one, are refused."""
    await refused(db, copy.parent, "is a directory; give the path of a file in it")
    await refused(db, copy / "x.db", "the directory .*copy.db does not exist; create it")
    copy.touch()
    await refused(db, copy / "x.db", "copy.db is not a directory; correct the path")


async def test_a_file_that_is_no_database(db: SQLiteDatabase, copy: Path) -> None:
    """A mistyped path does not overwrite a report; an empty file counts as reserved."""
    copy.write_text("the report of the year\n" * 100)
    await refused(db, copy, "is not an SQLite database", NotADatabaseError)
    copy.write_bytes(b"")
    await db.backup(copy)
    assert entries(copy) == 0


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal"])
async def test_a_file_with_a_log(db: SQLiteDatabase, copy: Path, side: str) -> None:
    """SQLite would apply the log to the new copy, whether or not there is a copy already."""
    beside = copy.with_name(f"copy.db{side}")
    for _ in range(2):
        beside.write_bytes(b"frames")
        await refused(db, copy, f"there is copy.db{side} beside it", DatabaseInUseError)
        beside.unlink()
        make(copy)
    await db.backup(copy)


async def test_an_empty_journal(db: SQLiteDatabase, copy: Path) -> None:
    """An empty journal is a leftover of journal_mode=TRUNCATE, and harmless."""
    make(copy, "TRUNCATE")
    assert files_beside(copy) == {"copy.db", "copy.db-journal"}
    await db.backup(copy)
    assert entries(copy) == 0


@ON_LINUX
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
async def test_a_database_that_another_process_has_open(
    db: SQLiteDatabase, copy: Path, mode: str
) -> None:
    """The process is named: its writes would go to a file without a name."""
    make(copy, mode)
    with OtherProcess(copy) as other:
        assert other.execute("SELECT count(*) FROM old") == "[(0,)]"
        message = "beside it" if mode == "WAL" else f"is in use by .*{other.name}"
        message = message.replace("(", r"\(").replace(")", r"\)")
        await refused(db, copy, message, DatabaseInUseError)
    for side in ("-wal", "-shm"):
        copy.with_name(f"copy.db{side}").unlink(missing_ok=True)
    await db.backup(copy)


async def test_a_database_that_is_locked(
    db: SQLiteDatabase, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reports it where the system does not list open files."""
    make(copy)
    monkeypatch.setattr("sa_sqlite_pool.backup.backup.users", lambda path, writing: [])
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM old").fetchall()
        await refused(db, copy, "is in use; close it, or choose another path", DatabaseInUseError)
    await db.backup(copy)


async def test_it_comes_into_use_meanwhile(db: SQLiteDatabase, copy: Path, held: Held) -> None:
    """The check before the end counts, too."""
    make(copy)
    task = asyncio.create_task(db.backup(copy))
    await until(held.inside.is_set)
    before = copy.read_bytes()
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        held.leave.set()
        with pytest.raises(exc.OperationalError, match="is in use"):
            await task
    assert copy.read_bytes() == before
    assert files_beside(copy) == {"copy.db"}


async def test_a_symbolic_link(db: SQLiteDatabase, copy: Path) -> None:
    """The link's target is replaced, and the link stays."""
    link = copy.with_name("latest.db")
    link.symlink_to(copy)
    await db.backup(link)
    assert link.is_symlink()
    assert entries(copy) == 0


# -- the unfinished file ----------------------------------------------------------------------


async def test_what_a_kill_has_left(db: SQLiteDatabase, copy: Path) -> None:
    """The next backup removes it, and does not write to it, because it may be open elsewhere."""
    unfinished = copy.with_name("copy.db.unfinished")
    unfinished.write_bytes(b"half")
    with unfinished.open("rb") as left:
        await db.backup(copy)
        assert left.read() == b"half"
    assert files_beside(copy) == {"copy.db"}
    assert entries(copy) == 0


async def test_two_at_once(db: SQLiteDatabase, copy: Path, held: Held) -> None:
    """The second one is refused, and the first is not disturbed."""
    task = asyncio.create_task(db.backup(copy))
    await until(held.inside.is_set)
    await refused(db, copy, "is being written by another backup or restore", DatabaseInUseError)
    held.leave.set()
    await task
    assert files_beside(copy) == {"copy.db"}
    assert entries(copy) == 0


async def test_a_link_in_its_place(db: SQLiteDatabase, copy: Path, tmp_path: Path) -> None:
    """A link in place of the unfinished file does not redirect the copy."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    copy.with_name("copy.db.unfinished").symlink_to(victim)
    await refused(db, copy, "copy.db.unfinished")
    assert victim.read_bytes() == b"mine"


def test_it_is_taken_for_left_before_it_is_locked(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another backup removes the file between its creation and its lock: it is created again.

    Create  | Another
    open    |
            | lock, unlink, close
    lock    |
    open    |
    """
    original = AtomicFile._own
    came: list[int] = []

    def late(self: AtomicFile, created: int) -> None:
        if not came:
            came.append(1)
            self._remove_what_was_left()
        original(self, created)

    monkeypatch.setattr(AtomicFile, "_own", late)
    atomic = AtomicFile(copy)
    atomic.create(like=__file__, source=__file__)
    try:
        assert came
        assert files_beside(copy) == {"copy.db.unfinished"}
        with pytest.raises(DatabaseInUseError):
            AtomicFile(copy).create(like=__file__, source=__file__)
    finally:
        atomic.discard()
    assert files_beside(copy) == set()


def test_another_ones_is_not_removed(copy: Path) -> None:
    """A refused backup has no file to discard, and a finished one no longer has one."""
    first, second = AtomicFile(copy), AtomicFile(copy)
    first.create(like=__file__, source=__file__)
    with pytest.raises(DatabaseInUseError):
        second.create(like=__file__, source=__file__)
    second.discard()
    assert files_beside(copy) == {"copy.db.unfinished"}
    first.replace()
    second.create(like=__file__, source=__file__)
    first.discard()
    assert files_beside(copy) == {"copy.db", "copy.db.unfinished"}
    second.discard()


def test_it_gets_its_name_before_it_is_locked(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup that takes it for a leftover must not remove its successor at the same name.

    First   | Second          | Third
            | finds it, opens |
    replace |                 |
            |                 | create
            | lock; leaves it |
    """
    first, second, third = (AtomicFile(copy) for _ in range(3))
    first.create(like=__file__, source=__file__)
    original = AtomicFile._lock

    def late(self: AtomicFile, descriptor: int) -> None:
        if self is second:
            first.replace()
            third.create(like=__file__, source=__file__)
        original(self, descriptor)

    monkeypatch.setattr(AtomicFile, "_lock", late)
    second._remove_what_was_left()
    assert files_beside(copy) == {"copy.db", "copy.db.unfinished"}
    third.discard()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_a_child_removes_nothing(copy: Path) -> None:
    """The file belongs to the parent, and so does the lock."""
    atomic = AtomicFile(copy)
    atomic.create(like=__file__, source=__file__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        atomic.discard()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert files_beside(copy) == {"copy.db.unfinished"}
    with pytest.raises(DatabaseInUseError):
        AtomicFile(copy).create(like=__file__, source=__file__)
    atomic.discard()


async def test_no_descriptor_is_left(db: SQLiteDatabase, copy: Path) -> None:
    """Neither a success nor a refusal leaves one open."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("the system does not list open files")
    await db.backup(copy)
    here = copy.parent.parent  # excludes files that the garbage of another test may still have open
    before = _open_files(here)
    await db.backup(copy)
    copy.write_text("not a database, but a text that is long enough for one" * 10)
    await refused(db, copy, "is not an SQLite database", NotADatabaseError)
    await until(lambda: _open_files(here) == before)


def _open_files(directory: Path) -> Any:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(descriptor))
        except OSError:
            continue
    return sorted(link for link in links if link.startswith(str(directory)))

"""Files beside a database, or beside a missing one."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sa_sqlite_pool import DatabaseNotUsableError, SQLiteDatabase
from sa_sqlite_pool.doctor import Severity, examine
from tests.commanding import shell
from tests.doctor.patients import SCHEMA, execute, found, healthy, ids, killed, mended, on_linux
from tests.helpers import create_items
from tests.publishing.looking import listening, make_stale
from tests.wal.others import OtherProcess

fcntl = pytest.importorskip("fcntl", reason="there are no such locks here")
pytestmark = on_linux


def missing(path: Path) -> bool:
    """Return true after checking that the only message is that there is no such file."""
    with pytest.raises(DatabaseNotUsableError, match=r"there is no file .*app.db; corr"):
        examine(path)
    return True


def test_a_log_beside_no_database(path: Path) -> None:
    """It may contain the last commits, and SQLite deletes it with a new database of that name."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    path.rename(path.with_name("moved.db"))
    finding = found(path, "database-missing", Severity.ERROR)
    assert f"there is {path}-wal, and no {path}" in finding.message
    shell(finding.mend.partition("move it away: ")[2], path.parent)
    assert Path(f"{path}-wal.old").exists()
    shell(found(path, "left-behind", Severity.WARNING).mend, path.parent)
    assert missing(path)


def test_a_log_beside_the_target_of_a_link(path: Path, tmp_path: Path) -> None:
    """The message has the log's real location, so the command finds it."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    path.unlink()
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    finding = found(link, "database-missing", Severity.ERROR)
    assert f"there is {path}-wal, and no {link}" in finding.message
    shell(finding.mend.partition("move it away: ")[2], link.parent)
    shell(found(link, "left-behind", Severity.WARNING).mend, link.parent)
    assert {entry.name for entry in path.parent.iterdir()} >= {f"{path.name}-wal.old"}


def test_a_log_that_is_put_back(path: Path) -> None:
    """The alternative remedy: once its database is back, everything is there."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    path.rename(path.with_name("moved.db"))
    assert "put the database" in found(path, "database-missing", Severity.ERROR).mend
    path.with_name("moved.db").rename(path)
    assert ids(path) == []


def test_a_log_beside_an_empty_file(path: Path) -> None:
    """As after ``> app.db``, or a failed copy, SQLite would delete the log."""
    healthy(path)
    killed(path, "INSERT INTO parents VALUES (3, 'c')")
    path.write_bytes(b"")
    finding = found(path, "database-missing", Severity.ERROR)
    assert f"{path}-wal, and nothing in {path}: " in finding.message
    assert Path(f"{path}-wal").stat().st_size > 0


def test_a_database_that_is_being_created(path: Path) -> None:
    """Its journal is not a leftover."""
    with OtherProcess(path) as other:
        for statement in ("BEGIN IMMEDIATE", "CREATE TABLE t (id)"):
            assert other.execute(statement) == "[]"
        assert (path.stat().st_size, Path(f"{path}-journal").exists()) == (0, True)
        assert ids(path) == ["empty"]


def test_a_journal_beside_no_database(path: Path) -> None:
    execute(path, *SCHEMA)
    killed(path, "PRAGMA cache_size = 1", "BEGIN IMMEDIATE", "DELETE FROM parents")
    path.unlink()
    assert f"{path}-journal" in found(path, "database-missing", Severity.ERROR).message


def test_an_index_beside_no_database(path: Path) -> None:
    """It contains nothing."""
    Path(f"{path}-shm").write_bytes(bytes(32768))
    Path(f"{path}-wal").touch()
    finding = found(path, "left-behind", Severity.WARNING)
    shell(finding.mend, path.parent)
    assert missing(path)


async def test_lock_files_beside_no_database(path: Path) -> None:
    """They belong to a database, and are no leftovers beside one."""
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
    assert Path(f"{path}-turn").exists()
    assert ids(path) == []
    path.unlink()
    shell(found(path, "lock-files", Severity.WARNING).mend, path.parent)
    assert missing(path)


def test_sockets_beside_no_database(path: Path) -> None:
    """A killed process leaves one; beside a database, it is no leftover: opening removes it."""
    healthy(path)
    socket = Path(make_stale(path))
    assert ids(path) == []
    path.unlink()
    finding = found(path, "status-sockets", Severity.WARNING)
    assert f"there is {socket}, at which a process that was killed" in finding.message
    shell(finding.mend, path.parent)
    assert not socket.exists()
    assert missing(path)


def test_a_socket_that_answers_is_no_leftover(path: Path) -> None:
    """Its process still uses a database that was removed, and still answers queries."""
    with listening(path) as socket:
        assert missing(path)
    assert os.path.exists(socket)


async def test_a_database_that_is_called_unfinished(path: Path) -> None:
    """No finding suggests removing it, not even after it was closed."""
    healthy(path)
    other = path.with_name("app.db.unfinished")
    async with SQLiteDatabase(other) as db:
        await create_items(db.writer_engine)
        assert ids(path) == []
    assert ids(path) == []
    on_no_log = path.with_name("app.db.old.unfinished")
    execute(on_no_log, *SCHEMA)
    with closing(sqlite3.connect(on_no_log, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert ids(path) == []


def test_an_unfinished_copy(path: Path) -> None:
    """A killed backup to another name, or a killed restore, is reported; a running one is not."""
    healthy(path)
    copy = Path(f"{path}.2026-05-01.unfinished")
    copy.write_bytes(b"half")
    with copy.open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        assert ids(path) == []
    mended(path, found(path, "unfinished-copy", Severity.WARNING))
    assert not copy.exists()


def test_an_unfinished_copy_beside_no_database(path: Path) -> None:
    Path(f"{path}.unfinished").write_bytes(b"half")
    shell(found(path, "unfinished-copy", Severity.WARNING).mend, path.parent)
    assert missing(path)


def test_a_database_that_was_damaged(path: Path) -> None:
    """A restore has kept it."""
    healthy(path)
    Path(f"{path}.damaged").write_bytes(b"damaged")
    finding = found(path, "damaged-copy", Severity.INFO)
    shell(finding.mend.partition(", once")[0], path.parent)
    assert ids(path) == []


@pytest.mark.parametrize("by", ["another", "none"])
def test_a_database_that_was_replaced_in_use(path: Path, by: str) -> None:
    """A process still uses the old file: it is named, and ending that process is the remedy."""
    healthy(path)
    with OtherProcess(path) as other:
        assert other.execute("INSERT INTO parents VALUES (3, 'c')") == "[]"
        for side in ("", "-wal", "-shm"):
            os.unlink(f"{path}{side}")
        if by == "another":
            healthy(path)
        finding = found(path, "replaced", Severity.ERROR)
        assert other.name in finding.message
        assert f"end {other.name}" in finding.mend
    assert ids(path) == [] if by == "another" else missing(path)

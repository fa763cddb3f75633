"""``restore()``: a backup in the place of a database that nobody uses."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import stat
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, exc, make_url, text

from sa_sqlite_pool import (
    ConfigurationError,
    DamagedDatabaseError,
    DatabaseInUseError,
    DatabaseNotUsableError,
    NotADatabaseError,
    SQLiteDatabase,
    restore,
)
from sa_sqlite_pool.backup import copying
from sa_sqlite_pool.transactions import locks
from tests.backup import ledger
from tests.backup.held import Held
from tests.backup.ledger import content, entries, run_program
from tests.helpers import cancelled_after, files_beside, until
from tests.wal.facade import said
from tests.wal.others import OtherProcess

ON_LINUX = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who has files open"
)
MODES = ["WAL", "DELETE", "TRUNCATE"]


def make(path: Path, mode: str = "WAL", page_size: int = 4096, rows: int = 500) -> None:
    """A closed database that is not the ledger."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE old (id INTEGER PRIMARY KEY, data BLOB)")
        connection.executemany("INSERT INTO old (data) VALUES (?)", [(b"x" * 3000,)] * rows)
        connection.commit()


@pytest.fixture
async def backup(copy: Path, tmp_path: Path) -> Path:
    """Of a ledger with three entries, made by ``db.backup()``."""
    async with SQLiteDatabase(tmp_path / "origin.db") as db:
        await ledger.create(db)
        for seed in range(3):
            await ledger.post(db, random.Random(seed))
        await db.backup(copy)
    (tmp_path / "origin.db").unlink()
    return copy


def names(path: Path) -> set[str]:
    return files_beside(path) - {"backups"}


class Unchanged:
    """``with Unchanged(path):`` the database has the same content afterwards, and no company."""

    def __init__(self, path: Path, beside: set[str] | None = None) -> None:
        self._path = path
        self._beside = {path.name} if beside is None else beside

    def __enter__(self) -> None:
        self._before = content(self._path)
        self._mode = header_versions(self._path)

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            assert names(self._path) == self._beside
            assert header_versions(self._path) == self._mode
            assert content(self._path) == self._before


def header_versions(path: Path) -> bytes:
    """Whether a closed database is in WAL mode."""
    return path.read_bytes()[18:20]


async def refused(
    backup: Path, database: Path, message: str, kind: type[sqlite3.Error] = DatabaseInUseError
) -> None:
    with pytest.raises(exc.DatabaseError, match=message) as raised:
        await asyncio.wait_for(restore(backup, database), 20)
    assert isinstance(raised.value.orig, kind)


# -- what it does -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
async def test_over_a_database(path: Path, backup: Path, mode: str, page_size: int) -> None:
    """Whatever its journal mode and page size: the same content as the backup, and no log."""
    make(path, mode, page_size)
    inode = path.stat().st_ino
    path.chmod(0o640)
    await restore(backup, path)
    assert entries(path) == 3
    assert content(path) == content(backup)
    assert names(path) <= {"app.db"} | ({"app.db-journal"} if mode == "TRUNCATE" else set())
    assert (path.stat().st_ino, stat.S_IMODE(path.stat().st_mode)) == (inode, 0o640)
    async with SQLiteDatabase(path) as db:
        await ledger.post(db, random.Random(9))
    assert entries(path) == 4


@pytest.mark.parametrize("size", [0, 100000])
async def test_over_a_smaller_and_a_larger_one(path: Path, backup: Path, size: int) -> None:
    """An empty file is a database without tables."""
    path.touch()
    if size:
        make(path, rows=2000)
    await restore(backup, path)
    assert entries(path) == 3
    assert path.stat().st_size == backup.stat().st_size


async def test_over_one_that_was_not_closed(path: Path, backup: Path) -> None:
    """The log of a process that was killed does not come back to spoil the backup."""
    with OtherProcess(path) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE old (id)")
        other.execute("INSERT INTO old VALUES (1)")
    assert {"app.db-wal"} <= names(path)
    await restore(backup, path)
    assert names(path) == {"app.db"}
    assert entries(path) == 3


async def test_where_there_is_none(path: Path, backup: Path) -> None:
    """It is made as a whole, for those who may use the backup."""
    backup.chmod(0o640)
    await restore(backup, path)
    assert content(path) == content(backup)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(path) == {"app.db"}


@pytest.mark.parametrize("side", ["-wal", "-journal"])
async def test_what_is_left_of_one_that_was_deleted(path: Path, backup: Path, side: str) -> None:
    """SQLite would apply a log that was left to the new one. It may be all that there is."""
    beside = path.with_name(f"app.db{side}")
    beside.write_bytes(b"frames")
    await refused(backup, path, f"there is app.db{side} beside it.*move both away")
    assert beside.read_bytes() == b"frames"
    assert names(path) == {f"app.db{side}"}
    beside.unlink()
    await restore(backup, path)
    assert entries(path) == 3


async def test_a_backup_in_wal_mode(path: Path, copy: Path) -> None:
    """A copy that somebody made of a closed database: nothing appears beside it."""
    make(copy, "WAL")
    make(path, "WAL", rows=5)
    before = copy.read_bytes()
    await restore(copy, path)
    assert files_beside(copy) == {"copy.db"}
    assert copy.read_bytes() == before
    assert content(path) == content(copy)


@pytest.mark.parametrize("as_what", ["text", "URL", "text URL", "path"])
async def test_a_database_as_the_facade_takes_it(path: Path, backup: Path, as_what: str) -> None:
    """By path or URL."""
    url = f"sqlite+aiosqlite:///{path}"
    ways: dict[str, Any] = {"text": str(path), "URL": make_url(url), "text URL": url, "path": path}
    database = ways[as_what]
    await restore(str(backup), database)
    assert entries(path) == 3


async def test_over_and_over(path: Path, backup: Path) -> None:
    """Back up, go on, restore: the state of the backup is there again."""
    for round_ in range(3):
        await restore(backup, path)
        async with SQLiteDatabase(path) as db:
            await ledger.post(db, random.Random(round_))
            await db.backup(backup)
            await ledger.post(db, random.Random(round_))
        assert (entries(path), entries(backup)) == (5 + round_, 4 + round_)


# -- a database in use ------------------------------------------------------------------------


@ON_LINUX
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "doing",
    [["SELECT count(*) FROM old"], ["BEGIN", "SELECT * FROM old LIMIT 1"], ["BEGIN IMMEDIATE"]],
    ids=["idle", "reading", "writing"],
)
async def test_another_process(path: Path, backup: Path, mode: str, doing: list[str]) -> None:
    """Has it open: it is named, it goes on, and nothing is changed."""
    make(path, mode)
    with OtherProcess(path) as other:
        for statement in doing:
            other.execute(statement)
        before = other.execute("SELECT count(*) FROM old")
        name = other.name.replace("(", r"\(").replace(")", r"\)")
        await refused(backup, path, f"app.db is in use by {name}; end what uses it")
        assert other.execute("SELECT count(*) FROM old") == before == "[(500,)]"
        other.execute("ROLLBACK")
        assert other.execute("DELETE FROM old WHERE id = 1") == "[]"
        assert other.execute("SELECT count(*) FROM old") == "[(499,)]"
    await restore(backup, path)
    assert entries(path) == 3


@pytest.mark.parametrize(
    ("mode", "doing"),
    [
        ("WAL", ["SELECT count(*) FROM old"]),
        ("DELETE", ["BEGIN", "SELECT * FROM old LIMIT 1"]),
        ("DELETE", ["BEGIN IMMEDIATE"]),
    ],
)
async def test_where_the_system_does_not_tell(
    path: Path, backup: Path, mode: str, doing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's locks do: any connection in WAL mode, any transaction in another one."""
    monkeypatch.setattr("sa_sqlite_pool.backup.restoring.users", lambda path: [])
    make(path, mode)
    with OtherProcess(path) as other:
        for statement in doing:
            other.execute(statement)
        await refused(backup, path, "app.db is in use by somebody, who has it locked")
        assert other.execute("SELECT count(*) FROM old") == "[(500,)]"
    await restore(backup, path)
    assert entries(path) == 3


@pytest.mark.parametrize("pragmas", [{}, {"journal_mode": "DELETE"}], ids=["wal", "delete"])
@ON_LINUX
async def test_this_process(path: Path, backup: Path, pragmas: dict[str, Any]) -> None:
    """An open ``SQLiteDatabase``; it goes on, and once it is closed there is nothing in the way."""
    async with SQLiteDatabase(path, pragmas=pragmas) as db:
        await ledger.create(db, 100)
        await refused(backup, path, "app.db is in use by this process")
        await ledger.post(db, random.Random(1))
    assert entries(path) == 1
    await restore(backup, path)
    assert entries(path) == 3


@ON_LINUX
async def test_another_library(path: Path, backup: Path) -> None:
    """A connection of somebody who does not know this package, and does nothing."""
    make(path, "DELETE")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM old"))
        connection.rollback()
        await refused(backup, path, "app.db is in use by this process")
    engine.dispose()
    await restore(backup, path)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One more for each pause between two tries for somebody else's lock."""
    made: list[None] = []
    original = locks.pause

    async def pause() -> None:
        made.append(None)
        await original()

    monkeypatch.setattr(locks, "pause", pause)
    return made


async def test_a_moment_is_waited(path: Path, backup: Path, pauses: list[None]) -> None:
    """For whoever is about to close; no more than half a second."""
    make(path)
    loop = asyncio.get_running_loop()
    with OtherProcess(path) as other:
        other.execute("SELECT * FROM old LIMIT 1")
        began = loop.time()
        await refused(backup, path, "in use")
        assert 0.4 < loop.time() - began < 30
        pauses.clear()
        task = asyncio.create_task(restore(backup, path))
        await until(lambda: pauses)
        other.end()
        await task
    assert entries(path) == 3


async def test_somebody_opens_it_in_the_middle(
    path: Path, backup: Path, held: Held, pauses: list[None]
) -> None:
    """They wait, or are refused, until it is done; what they see then is the backup."""
    make(path)
    task = asyncio.create_task(restore(backup, path))
    await until(held.inside.is_set)
    with OtherProcess(path) as other:
        assert other.execute("PRAGMA busy_timeout = 0") == "[(0,)]"
        assert other.execute("SELECT count(*) FROM old") == "database is locked"
        assert other.execute("BEGIN IMMEDIATE") == "database is locked"
        assert other.execute("PRAGMA journal_mode = WAL") == "database is locked"
        db = SQLiteDatabase(path)
        opening = asyncio.create_task(db.open())
        await until(lambda: pauses)
        assert not opening.done()
        held.leave.set()
        await task
        await opening
        await ledger.post(db, random.Random(9))
        assert other.execute("SELECT n FROM counter") == "[(4,)]"
        await db.close()
    assert entries(path) == 4


async def test_somebody_makes_it_in_the_middle(path: Path, backup: Path, held: Held) -> None:
    """Where there was none: theirs stays."""
    task = asyncio.create_task(restore(backup, path))
    await until(held.inside.is_set)
    with OtherProcess(path) as other:
        other.execute("CREATE TABLE theirs (id)")
        held.leave.set()
        with pytest.raises(exc.OperationalError, match=r"app\.db is in use by"):
            await task
        assert other.execute("SELECT count(*) FROM theirs") == "[(0,)]"
    assert names(path) == {"app.db"}


# -- a damaged database -----------------------------------------------------------------------


def break_header(path: Path) -> bytes:
    with path.open("r+b") as file:
        file.write(b"garbage!" * 8)
    return path.read_bytes()


def break_schema(path: Path) -> bytes:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 1000)
    return path.read_bytes()


@pytest.mark.parametrize("damage", [break_header, break_schema])
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
async def test_one_that_sqlite_cannot_read(
    path: Path, backup: Path, damage: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Is what people restore for. It is replaced, and kept; a warning says where."""
    make(path, mode)
    broken = damage(path)
    path.chmod(0o640)
    await restore(backup, path)
    assert entries(path) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    kept = path.with_name("app.db.damaged")
    assert names(path) == {"app.db", "app.db.damaged"}
    assert kept.read_bytes() == broken
    (warning,) = said(caplog)
    assert warning.endswith(f"it is kept as {kept}")


async def test_a_broken_page(path: Path, backup: Path) -> None:
    """One that SQLite opens is restored as any other."""
    make(path)
    with path.open("r+b") as file:
        file.seek(50 * 4096)
        file.write(b"\xff" * 40960)
    await restore(backup, path)
    assert names(path) == {"app.db"}
    assert entries(path) == 3


async def test_a_damaged_one_is_kept_once(path: Path, backup: Path) -> None:
    """An earlier one is not lost for it."""
    make(path)
    broken = break_header(path)
    kept = path.with_name("app.db.damaged")
    kept.write_text("earlier")
    await refused(backup, path, "move that away, and restore again", DatabaseNotUsableError)
    assert (path.read_bytes(), kept.read_text()) == (broken, "earlier")
    assert names(path) == {"app.db", "app.db.damaged"}


async def test_a_damaged_one_with_a_log(path: Path, backup: Path) -> None:
    """Is left to its owner, as it is: SQLite would move the log into it."""
    make(path)
    with OtherProcess(path) as other:
        other.execute("UPDATE old SET data = zeroblob(3000)")
    broken, log = break_header(path), path.with_name("app.db-wal").read_bytes()
    assert len(log) > 4096
    await refused(backup, path, "there is app.db-wal beside it, and SQLite would apply that")
    assert path.read_bytes() == broken
    assert path.with_name("app.db-wal").read_bytes() == log
    assert names(path) == {"app.db", "app.db-wal", "app.db-shm"}


async def test_a_damaged_one_where_the_system_does_not_tell(
    path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows who has it open, and SQLite has no locks in it."""
    monkeypatch.setattr("sa_sqlite_pool.backup.restoring.tells_users", False)
    monkeypatch.setattr("sa_sqlite_pool.backup.restoring.users", lambda path: [])
    make(path)
    broken = break_header(path)
    await refused(backup, path, "move it away, and restore again", NotADatabaseError)
    assert path.read_bytes() == broken
    assert names(path) == {"app.db"}


@ON_LINUX
async def test_a_damaged_one_in_use(path: Path, backup: Path, held: Held) -> None:
    """Opened before, or in the middle."""
    make(path, "DELETE")
    broken = break_header(path)
    with path.open("rb"):
        await refused(backup, path, "is in use by this process")
    task = asyncio.create_task(restore(backup, path))
    await until(held.inside.is_set)
    with path.open("rb"):
        held.leave.set()
        with pytest.raises(exc.OperationalError, match="is in use by this process"):
            await task
    assert path.read_bytes() == broken
    assert names(path) == {"app.db"}


# -- a backup that is none --------------------------------------------------------------------


def _cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _scratch(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (_cut, DamagedDatabaseError, "copy.db is damaged, PRAGMA integrity_check says: "),
        (_scratch, DamagedDatabaseError, "copy.db is damaged, PRAGMA integrity_check says: "),
        (break_header, NotADatabaseError, "copy.db is not an SQLite database"),
        (lambda path: path.write_text("text" * 500), NotADatabaseError, "not an SQLite database"),
        (lambda path: path.write_bytes(b""), NotADatabaseError, "copy.db is empty"),
        (lambda path: path.unlink(), DatabaseNotUsableError, "there is no backup at .*copy.db"),
    ],
)
async def test_a_spoilt_backup(
    path: Path, backup: Path, spoil: Any, kind: type[sqlite3.Error], message: str
) -> None:
    """Is found out before the database is touched."""
    make(path)
    spoil(backup)
    with Unchanged(path):
        await refused(backup, path, message, kind)


@pytest.mark.parametrize("side", ["-wal", "-journal"])
async def test_a_backup_with_a_log(path: Path, backup: Path, side: str) -> None:
    """Is not the whole, or in use."""
    make(path)
    beside = backup.with_name(f"copy.db{side}")
    beside.write_bytes(b"frames")
    with Unchanged(path):
        await refused(backup, path, f"there is copy.db{side} beside it")


@pytest.mark.parametrize("by", ["path", "symbolic link", "hard link"])
async def test_the_database_itself(path: Path, copy: Path, by: str) -> None:
    """Is no backup."""
    make(path)
    if by == "symbolic link":
        copy.symlink_to(path)
    elif by == "hard link":
        os.link(path, copy)
    with Unchanged(path):
        await refused(
            path if by == "path" else copy, path, "is the database itself", DatabaseNotUsableError
        )


async def test_wrong_databases(tmp_path: Path, backup: Path) -> None:
    """In memory, of another kind, in a directory that is missing."""
    for database in (":memory:", "sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"):
        with pytest.raises(ConfigurationError, match="in memory cannot be restored"):
            await restore(backup, database)
    with pytest.raises(ConfigurationError, match="postgresql"):
        await restore(backup, "postgresql+asyncpg://host/app")
    await refused(backup, tmp_path / "no" / "app.db", "does not exist", DatabaseNotUsableError)
    await refused(backup, tmp_path, "is a directory", DatabaseNotUsableError)


# -- it does not come to its end --------------------------------------------------------------


@pytest.mark.parametrize("target", ["WAL", "DELETE", "damaged", "none"])
@pytest.mark.parametrize("times", [1, 1000])
async def test_a_cancelled_one(path: Path, backup: Path, target: str, times: int) -> None:
    """At every await: the old database, or the backup, and nothing else."""
    threads = threading.active_count()
    cancelled = 0
    for steps in range(0, 300, 7):
        for name in names(path):
            path.with_name(name).unlink()
        if target != "none":
            make(path, "DELETE" if target == "damaged" else target, rows=50)
        if target == "damaged":
            break_header(path)
        before = path.read_bytes() if path.exists() else None
        cancelled += await cancelled_after(restore(backup, path), steps, times)
        await until(lambda: threading.active_count() <= threads)
        assert names(path) <= {"app.db", "app.db.damaged"}
        after = path.read_bytes() if path.exists() else None
        if before is None or target == "damaged":
            assert after in {before, backup.read_bytes()}
        elif "CREATE TABLE entries" in "".join(content(path)):
            assert entries(path) == 3
        else:
            assert len(content(path)) == 50 + 3
            assert times > 1 or header_versions(path) == before[18:20]
    assert cancelled


KILLED = """
import asyncio, os, signal, sys
from sa_sqlite_pool import restore
from sa_sqlite_pool.backup import copying

original = copying._copy

def killing(source, target, pages, worker, step):
    def each(copied, total):
        step(copied, total)
        if copied >= int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    original(source, target, 20, worker, each)

copying._copy = killing
asyncio.run(restore(*sys.argv[1:3]))
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL here")
@pytest.mark.parametrize("target", ["WAL", "DELETE", "none"])
@pytest.mark.parametrize("pages", [0, 600])
async def test_a_kill(path: Path, tmp_path: Path, copy: Path, target: str, pages: int) -> None:
    """In the middle: whoever opens the database next finds it as it was."""
    async with SQLiteDatabase(tmp_path / "origin.db") as db:
        await ledger.create(db, 8000)  # more than SQLite's cache: pages of the old one are gone
        await db.backup(copy)
    (tmp_path / "origin.db").unlink()
    if target != "none":
        make(path, target, rows=2000)
    before = content(path) if target != "none" else None
    done = run_program(KILLED, copy, path, pages)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if before is None:
        assert names(path) == {"app.db.unfinished"}
    else:
        assert names(path) == {"app.db", "app.db-journal"}
        assert content(path) == before
        assert names(path) - {"app.db-journal"} == {"app.db"}  # which is empty, or was never used
    await restore(copy, path)
    assert entries(path) == 0
    assert names(path) == {"app.db"}


FULL_DISK = """
import asyncio, resource, sys
import sqlalchemy.exc
from sa_sqlite_pool import restore

resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, resource.RLIM_INFINITY))
try:
    asyncio.run(restore(*sys.argv[1:]))
except sqlalchemy.exc.OperationalError as error:
    print(type(error.orig).__name__, error.orig, "|", error.detail[0])
"""


@pytest.mark.parametrize("mode", [*MODES[:2], "none"])
async def test_no_room(path: Path, backup: Path, mode: str) -> None:
    """An error, and the database is as it was."""
    pytest.importorskip("resource", reason="there are no limits for files here")
    if mode != "none":
        make(path, mode, rows=100)
    said = "OperationalError disk I/O error | app.db is as it was\n"
    if mode == "none":
        assert run_program(FULL_DISK, backup, path).stdout == said
        assert names(path) == set()
    else:
        with Unchanged(path):
            assert run_program(FULL_DISK, backup, path).stdout == said
    await restore(backup, path)
    assert entries(path) == 3


async def test_a_broken_disk(path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not somebody who uses the database."""

    def broken(connection: sqlite3.Connection) -> str:
        raise sqlite3.OperationalError("disk I/O error")

    make(path)
    monkeypatch.setattr("sa_sqlite_pool.backup.restoring.take_alone", broken)
    await refused(backup, path, "disk I/O error.*", sqlite3.OperationalError)
    with pytest.raises(exc.OperationalError) as raised:
        await restore(backup, path)
    assert not isinstance(raised.value.orig, DatabaseInUseError)


# -- the end lasts ----------------------------------------------------------------------------


async def test_it_is_on_the_disk(path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal before the database, the database before the end of the journal, and that."""
    made: list[Any] = []
    original = copying._copy

    def spied(source: Any, target: Any, *rest: Any) -> None:
        made.append(target.execute("PRAGMA synchronous").fetchone()[0])
        made.append(target.execute("PRAGMA journal_mode").fetchone()[0])
        original(source, target, *rest)

    make(path)
    monkeypatch.setattr(copying, "_copy", spied)
    await restore(backup, path)
    assert made == [3, "delete"]  # EXTRA


async def test_two_at_once(path: Path, backup: Path, held: Held) -> None:
    """The second one finds the first in its way."""
    make(path)
    with ExitStack() as stack:
        stack.callback(held.leave.set)
        task = asyncio.create_task(restore(backup, path))
        await until(held.inside.is_set)
        await refused(backup, path, "is in use by")
    await task
    assert entries(path) == 3

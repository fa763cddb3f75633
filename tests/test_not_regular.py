"""FIFOs and other special files in place of the files that the package keeps beside a database."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import DatabaseNotUsableError, SQLiteDatabase, SQLitePool, WriterPool
from sa_sqlite_pool.files import site
from sa_sqlite_pool.files.log_file import LogSize, measure, sync_file
from sa_sqlite_pool.files.neighbours import Presence
from sa_sqlite_pool.system.atomic_file import AtomicFile
from sa_sqlite_pool.system.regular_files import open_regular
from sa_sqlite_pool.turn.file_turn import FileTurn
from tests.conftest import MakeEngine
from tests.helpers import UPDATE_FIRST, amounts, create_items, files_beside
from tests.turn.locks import other_process

fcntl = pytest.importorskip("fcntl", reason="there are no FIFOs here")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets must be short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a directory": Path.mkdir,
    "a symbolic link": lambda path: path.symlink_to("elsewhere"),
    "a socket": _socket,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file(tmp_path: Path, kind: str) -> None:
    """The error names it at once, with the remedy, and the object is left as it is."""
    path = tmp_path / "x"
    KINDS[kind](path)
    with pytest.raises(DatabaseNotUsableError, match=f"{path} is {kind}, but .* remove it, soon"):
        open_regular(str(path), ", soon")
    assert os.path.lexists(path)


def test_a_device() -> None:
    """A device can be opened, but is not a regular file."""
    with pytest.raises(DatabaseNotUsableError, match="/dev/null is a device"):
        open_regular("/dev/null", "")


def test_a_link_to_a_file(tmp_path: Path) -> None:
    """This includes a link with an existing target, which may belong to another program."""
    (tmp_path / "elsewhere").touch()
    KINDS["a symbolic link"](tmp_path / "x")
    with pytest.raises(DatabaseNotUsableError, match="a symbolic link"):
        open_regular(str(tmp_path / "x"), "")


def test_a_regular_file(tmp_path: Path) -> None:
    """It is opened; other errors of the system are raised unchanged."""
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError):
        open_regular(str(path), "")
    path.write_bytes(b"1")
    descriptor = open_regular(str(path), "")
    assert os.read(descriptor, 9) == b"1"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


# -- the turn between processes ------------------------------------------------------------------

REFUSED = (exc.OperationalError, DatabaseNotUsableError)

WRITES: dict[str, Callable[[SQLiteDatabase], Awaitable[Any]]] = {}


def write_by(name: str) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        WRITES[name] = function
        return function

    return register


@write_by("a session")
async def _session(db: SQLiteDatabase) -> None:
    async with db.write() as session:
        await session.execute(UPDATE_FIRST)


@write_by("a function")
async def _function(db: SQLiteDatabase) -> None:
    await db.run_write(lambda session: session.execute(UPDATE_FIRST).close())


@write_by("a checkpoint")
async def _checkpoint(db: SQLiteDatabase) -> None:
    await db.checkpoint()


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", KINDS)
async def test_in_the_place_of_the_turn(path: Path, kind: str, write: str) -> None:
    """A writer gets the error at once, each time; readers and the loop continue."""
    async with SQLiteDatabase(path, file_turn=False) as db:
        await create_items(db.writer_engine)
    KINDS[kind](Path(f"{path}-turn"))
    async with SQLiteDatabase(path) as db:
        for _ in range(2):
            with pytest.raises(REFUSED, match=f"app.db-turn is {kind}") as raised:
                await asyncio.wait_for(WRITES[write](db), 10)
            error = raised.value
            assert isinstance(getattr(error, "orig", error), DatabaseNotUsableError)
        assert await amounts(db.reader_engine) == [0, 0, 0]


@pytest.mark.parametrize("door", [SQLitePool, WriterPool])
async def test_through_engines(path: Path, make_engine: MakeEngine, door: type) -> None:
    """After the FIFO is removed, writing works again."""
    await create_items(make_engine(WriterPool, file_turn=False))
    fifo = Path(f"{path}-turn")
    os.mkfifo(fifo)
    engine: AsyncEngine = make_engine(door)
    async with engine.connect() as connection:
        with pytest.raises(exc.OperationalError, match="is a FIFO"):
            await connection.execute(UPDATE_FIRST)
        await connection.rollback()
        fifo.unlink()
        await connection.execute(UPDATE_FIRST)
        await connection.commit()
    assert await amounts(engine) == [1, 0, 0]


@pytest.mark.parametrize("name", ["turn", "line"])
async def test_in_the_thread_that_waits(path: Path, name: str) -> None:
    """A task that waits for another process gets the error, and the thread serves the next one."""
    turn = FileTurn(str(path))
    path.touch()
    with other_process(path):
        assert turn.acquire_nowait() is None
        place = Path(f"{path}-{name}")
        place.unlink(missing_ok=True)
        os.mkfifo(place)
        for _ in range(2):
            with pytest.raises(DatabaseNotUsableError, match="is a FIFO"):
                await asyncio.wait_for(turn.acquire(10.0), 10)
        place.unlink()


async def test_a_database_by_a_link(path: Path, tmp_path: Path) -> None:
    """It is treated normally: its files are beside the link's target."""
    real = tmp_path / "real"
    real.mkdir()
    path.symlink_to(real / "app.db")
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
    assert {entry.name for entry in real.iterdir()} == {"app.db", "app.db-turn"}


@pytest.mark.parametrize(
    ("database", "lock"), [(0o644, 0o600), (0o664, 0o660), (0o666, 0o666), (0o640, 0o600)]
)
def test_only_who_may_write_may_lock(path: Path, database: int, lock: int) -> None:
    """``flock()`` needs only a descriptor: a reader could otherwise prevent all writes."""
    path.touch()
    path.chmod(database)
    request = FileTurn(str(path)).acquire_nowait()
    assert request is not None
    request.release()
    assert stat.S_IMODE(os.stat(f"{path}-turn").st_mode) == lock


# -- the log -------------------------------------------------------------------------------------


def test_in_the_place_of_the_log(path: Path) -> None:
    """No lock, measurement or sync of the log waits for the FIFO."""
    log = f"{path}-wal"
    os.mkfifo(log)
    Presence(log).show(os.stat(log).st_ino)
    assert measure(log) == LogSize()
    sync_file(log)


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["a FIFO", "a directory", "a socket"])
async def test_in_the_place_of_sqlites_files(path: Path, kind: str, side: str) -> None:
    """SQLite would wait there for ever, so the database is not opened."""
    KINDS[kind](Path(f"{path}{side}"))
    with pytest.raises(exc.OperationalError, match=f"app.db{side} is not a regular file"):
        await asyncio.wait_for(SQLiteDatabase(path).open(), 10)
    assert not path.exists()


def test_a_journal_that_goes_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process ends its transaction during the check, so nothing has to be refused."""
    journal, look = Path(f"{path}-journal"), os.stat
    journal.touch()

    def look_last(name: Any, **options: Any) -> os.stat_result:
        found = look(name, **options)
        if str(name) == str(journal):
            journal.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(os, "stat", look_last)
    site._check_side_files(str(path))
    assert not os.path.lexists(journal)


async def test_a_journal_that_was_left(path: Path) -> None:
    """journal_mode=TRUNCATE leaves an empty one; SQLite rolls back a hot one."""
    Path(f"{path}-journal").touch()
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)


# -- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_in_the_place_of_an_unfinished_copy(path: Path, tmp_path: Path, kind: str) -> None:
    """The backup is refused at once, and the object stays."""
    place = tmp_path / "copy.db.unfinished"
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        KINDS[kind](place)
        with pytest.raises(exc.OperationalError, match=f"copy.db.unfinished is {kind}"):
            await asyncio.wait_for(db.backup(tmp_path / "copy.db"), 10)
    assert os.path.lexists(place)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # /dev/full, which nothing has open
    except (AttributeError, PermissionError):
        pytest.skip("no devices can be made here")


@pytest.mark.parametrize("make", [os.mkfifo, _socket, _device])
async def test_in_the_place_of_a_copy(
    path: Path, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    """It is not replaced by a file, because other programs may use it."""
    place = tmp_path / "x"
    make(place)
    before = place.stat()
    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        with pytest.raises(exc.DBAPIError, match="x is not a regular file; choose another path"):
            await asyncio.wait_for(db.backup(place), 10)
        assert os.path.samestat(place.stat(), before)
        (tmp_path / "link").symlink_to(tmp_path / "copy.db")
        await db.backup(tmp_path / "link")
    assert (tmp_path / "copy.db").is_file()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO, errno.EINTR])
async def test_a_copy_that_cannot_be_locked(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """No file is left behind, and the next backup works."""

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    async with SQLiteDatabase(path) as db:
        await create_items(db.writer_engine)
        before = files_beside(path)
        with monkeypatch.context() as patched:
            patched.setattr(fcntl, "flock", fail)
            with pytest.raises(exc.OperationalError, match=os.strerror(code)):
                await db.backup(tmp_path / "copy.db")
        assert files_beside(path) == before
        await db.backup(tmp_path / "copy.db")


def test_a_copy_of_another_is_left_alone(tmp_path: Path) -> None:
    """Only the holder of its lock removes it."""
    one, other = AtomicFile(tmp_path / "copy.db"), AtomicFile(tmp_path / "copy.db")
    like = tmp_path / "like"
    like.touch()
    one.create(like=str(like), source=str(like))
    with pytest.raises(
        sqlite3.OperationalError, match="is being written by another backup or restore"
    ):
        other.create(like=str(like), source=str(like))
    assert Path(one.path).exists()
    one.discard()


async def test_text_of_the_error(path: Path) -> None:
    """The message says what to do."""
    os.mkfifo(f"{path}-turn")
    async with SQLiteDatabase(path) as db:
        with pytest.raises(exc.OperationalError) as raised:
            async with db.write() as session:
                await session.execute(text("CREATE TABLE t (a)"))
    assert str(raised.value.orig) == (
        f"{path}-turn is a FIFO, but must be a regular file; find out what put it there, and "
        "remove it, or keep the database in its own directory; file_turn=False works without "
        "that file"
    )

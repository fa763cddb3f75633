"""The socket of an open database: it exists, for this user only, and is removed in time."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sa_sqlite_pool import SQLiteDatabase
from sa_sqlite_pool.publishing import addresses, server
from sa_sqlite_pool.publishing.publisher import Publisher
from tests.helpers import files_beside, until
from tests.publishing.looking import ask, ask_beside, make_old, make_stale, published, sockets


def threads() -> list[threading.Thread]:
    return [found for found in threading.enumerate() if found.name == "sa_sqlite_pool-status"]


async def test_an_open_database_answers_from_outside(path: Path) -> None:
    """A single document has the process, its name, and the result of statistics()."""
    async with SQLiteDatabase(path) as db:
        async with db.write() as session:
            await session.execute(text("CREATE TABLE t (n INTEGER)"))
            await published(path)
            (answer,) = await ask_beside(path)
        here = db.statistics().as_dict()
    assert (answer.pid, answer.error) == (os.getpid(), None)
    assert answer.document is not None
    assert answer.document["version"] == 1
    assert answer.document["pid"] == os.getpid()
    assert answer.document["process"]
    assert answer.document["since"].endswith("+00:00")
    assert answer.statistics is not None
    assert answer.statistics.keys() == here.keys()
    assert answer.statistics["turn"]["holder"]["sql"] == "CREATE TABLE t (n INTEGER)"


async def test_the_socket_is_the_owners_alone(path: Path) -> None:
    """No other user can connect, whatever the umask is."""
    before = os.umask(0)
    try:
        async with SQLiteDatabase(path):
            (found,) = await published(path)
            assert stat.S_IMODE(os.stat(found).st_mode) == 0o600
    finally:
        os.umask(before)


async def test_nothing_is_left_after_close(path: Path) -> None:
    """No file and no thread remain, even if it is closed at once."""
    for wait in (True, False):
        async with SQLiteDatabase(path):
            if wait:
                await published(path)
        await until(lambda: not threads())
        assert files_beside(path) == {path.name}
        assert sockets(path) == []


async def test_two_databases_of_one_process_answer_each(path: Path) -> None:
    """Each facade has its own socket, and closing one does not affect the other."""
    async with SQLiteDatabase(path):
        async with SQLiteDatabase(path):
            await published(path, 2)
            assert len(await ask_beside(path)) == 2
        assert len(await ask_beside(path)) == 1


def test_a_database_of_several_loops_is_published_once(path: Path) -> None:
    """Opening it again, on another loop, creates no second socket."""
    db = SQLiteDatabase(path)

    async def open_it() -> None:
        await db.open()
        await published(path)

    asyncio.run(open_it())
    asyncio.run(open_it())
    assert len(sockets(path)) == 1
    asyncio.run(db.close())
    assert sockets(path) == []


async def test_publishing_does_not_keep_a_database_alive(path: Path) -> None:
    """A database that is dropped without close() loses its socket."""
    db = SQLiteDatabase(path)
    await db.open()
    await published(path)
    for engine in (db.reader_engine, db.writer_engine):
        await engine.dispose()
    del db, engine
    gc.collect()
    await until(lambda: not threads())
    assert sockets(path) == []


@pytest.mark.parametrize("end", ["", "sys.exit(1)", "raise KeyboardInterrupt"])
def test_nothing_is_left_at_exit(path: Path, end: str) -> None:
    """A program that does not close it leaves no socket, no warning, and no thread's traceback."""
    program = (
        "import asyncio, sys\n"
        "from sa_sqlite_pool import SQLiteDatabase\n"
        "from tests.publishing.looking import published\n"
        "from pathlib import Path\n"
        "db = SQLiteDatabase(sys.argv[1])\n"
        "async def main():\n"
        "    await db.open()\n"
        "    print(len(await published(Path(sys.argv[1]))))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", f"{program}{end}\n", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "1\n"
    assert "socket" not in done.stderr  # unclosed sockets would cause a warning
    assert "sa_sqlite_pool-status" not in done.stderr
    assert sockets(path) == []


# -- unpublished databases ---------------------------------------------------------------------


async def test_publish_status_false_makes_no_socket(path: Path) -> None:
    """No thread is started, either."""
    async with SQLiteDatabase(path, publish_status=False):
        assert threads() == []


async def test_a_database_in_memory_is_not_published() -> None:
    """Neither a private nor a named one is published: no other process can use it."""
    named = "sqlite+aiosqlite:///file:shared?mode=memory&cache=shared&uri=true"
    for url in (":memory:", named):
        async with SQLiteDatabase(url):
            assert threads() == []


async def test_what_may_only_be_read_is_not_published(path: Path) -> None:
    """The directory of a database that is opened read-only is left unchanged."""
    async with SQLiteDatabase(path):
        pass
    async with SQLiteDatabase(f"sqlite+aiosqlite:///file:{path}?mode=ro&uri=true"):
        assert threads() == []


async def test_a_system_without_local_sockets(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database opens and closes as usual."""
    monkeypatch.setattr(addresses, "supported", False)
    async with SQLiteDatabase(path):
        assert threads() == []


async def test_where_no_socket_can_be_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread ends, and the database works."""

    def refused(listener: socket.socket, where: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(addresses, "bind", refused)
    async with SQLiteDatabase(path) as db:
        await until(lambda: not threads())
        async with db.read() as session:
            assert await session.scalar(text("SELECT 1")) == 1


class _Forbidden(socket.socket):
    """The class with which pytest-socket replaces ``socket.socket``."""

    def __new__(cls, *_: object, **__: object) -> Any:
        warnings.warn("a test tried to use a socket", stacklevel=2)
        raise RuntimeError("a test tried to use a socket")


@pytest.mark.parametrize("imported", ["before", "meanwhile"])
async def test_a_test_that_forbids_sockets(
    path: Path, monkeypatch: pytest.MonkeyPatch, imported: str
) -> None:
    """The database works without a warning; its own socket connects to no other program."""
    monkeypatch.setattr(socket, "socket", _Forbidden)
    if imported == "meanwhile":
        warnings.simplefilter("ignore")
        monkeypatch.setattr(server, "_Socket", _Forbidden)
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    async with SQLiteDatabase(path) as db:
        if imported == "before":
            await until(lambda: sockets(path))
        else:
            await until(lambda: not threads())
        async with db.read() as session:
            assert await session.scalar(text("SELECT 1")) == 1
    await until(lambda: not threads())
    assert not raised


@pytest.mark.parametrize("lacking", ["descriptors", "threads"])
def test_a_system_at_its_limits(path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    """Without a free descriptor or thread, the database opens nevertheless."""

    def pipe() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    publisher = Publisher(SQLiteDatabase(path).statistics)
    if lacking == "descriptors":
        monkeypatch.setattr(os, "pipe", pipe)
    else:
        monkeypatch.setattr(threading.Thread, "start", start)
    publisher.open(str(path))
    publisher.close()
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


# -- names -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_a_path_longer_than_a_sockets_address(tmp_path: Path) -> None:
    """An address (sun_path) has 108 bytes, and a directory's path may be longer."""
    path = tmp_path / ("d" * 200) / "app.db"
    path.parent.mkdir()
    async with SQLiteDatabase(path):
        await published(path)
        (answer,) = await ask_beside(path)
        assert answer.statistics is not None
    assert sockets(path) == []


async def test_a_name_longer_than_a_sockets_address(tmp_path: Path) -> None:
    """It is not published, but works."""
    path = tmp_path / ("d" * 150 + ".db")
    async with SQLiteDatabase(path):
        await until(lambda: not threads())
        assert sockets(path) == []


def test_other_files_are_no_sockets(path: Path) -> None:
    """Sockets of another database, and regular files of such a name, do not count."""
    for name in ("-status-1-ab", "-status-x-ab", "-status", "-status-1-ab.old"):
        Path(f"{path}{name}").touch()
    other = path.with_name("other.db")
    make_stale(other)
    assert sockets(path) == []
    assert len(sockets(other)) == 1


# -- leftovers of other processes --------------------------------------------------------------


@pytest.mark.parametrize("when", ["opens", "closes", "looks"])
async def test_a_stale_socket_is_removed(path: Path, when: str) -> None:
    """The next process that opens, closes or queries the database removes it."""
    if when == "opens":
        stale = make_stale(path)
    db = SQLiteDatabase(path)
    await db.open()
    await published(path, 1)
    if when != "opens":
        stale = make_stale(path)
    if when == "looks":
        assert len(await ask_beside(path)) == 1
        assert not os.path.exists(stale)
    await db.close()
    await until(lambda: not threads())
    assert not os.path.exists(stale)


def test_a_socket_that_does_not_listen_yet_is_left(path: Path) -> None:
    """Between bind() and listen(), a socket refuses connections, too."""
    found = f"{path}-status-{os.getpid()}-0123ab"
    with socket.socket(socket.AF_UNIX) as starting:
        addresses.bind(starting, found)
        assert ask(path) == []
        addresses.remove_stale(str(path))
        assert sockets(path) == [found]
        starting.listen()
        make_old(found)
        addresses.remove_stale(str(path))
        assert sockets(path) == [found]


def test_what_is_no_socket_is_never_removed(path: Path) -> None:
    """The name does not matter."""
    other = Path(f"{path}-status-4194305-0123ab")
    other.touch()
    make_old(str(other))
    addresses.remove_refused(str(other))
    assert other.exists()


def test_a_directory_that_is_gone_has_no_sockets(tmp_path: Path) -> None:
    """A database that was removed together with its directory can still be closed."""
    assert addresses.paths(str(tmp_path / "gone" / "app.db")) == []


def test_a_socket_that_is_removed_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has removed it first, which is neither an error nor a leftover."""
    gone = f"{path}-status-4194305-0123ab"
    monkeypatch.setattr(addresses, "paths", lambda _: [gone])
    assert list(addresses.stale(str(path))) == []
    addresses.remove_stale(str(path))


def test_a_process_of_another_user_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it runs cannot be checked; its socket stays, although nothing listens yet."""
    left = Path(make_stale(path))

    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    addresses.remove_stale(str(path))
    assert left.exists()

"""The state that all users of a database file in this process share."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from pathlib import Path

import pytest

from sa_sqlite_pool import ReaderPool, SQLitePool, WriterPool
from sa_sqlite_pool import database_file as module
from sa_sqlite_pool.database_file import database_file
from sa_sqlite_pool.files.location import Location
from sa_sqlite_pool.pools.base import FairPool
from tests.conftest import MakeEngine
from tests.helpers import create_items


@pytest.fixture
def app(path: Path) -> Location:
    return Location(str(path))


def test_one_object_for_one_file(path: Path, tmp_path: Path) -> None:
    """A link, an SQLite URI, and a path that is not in its shortest form give the same object."""
    path.touch()
    link = tmp_path / "link.db"
    link.symlink_to(path)
    file = database_file(Location(str(path)))
    assert database_file(Location(str(link))) is file
    assert database_file(Location(f"{path.parent}/./{path.name}")) is file
    assert database_file(Location.parse(f"file:{path}?vfs=unix", uri=True)) is file
    assert database_file(Location(str(tmp_path / "other.db"))) is not file


def test_databases_in_memory_are_told_apart_by_their_names() -> None:
    """Connections may share an in-memory database, which has no file."""
    one = Location.parse("file:/one?vfs=memdb", uri=True)
    file = database_file(one)
    assert database_file(one) is file
    assert file.file is None
    assert database_file(Location.parse("file:/two?vfs=memdb", uri=True)) is not file


async def test_all_pools_on_a_file_share_it(make_engine: MakeEngine, path: Path) -> None:
    """The object knows the pools that have connections to its file."""
    await create_items(make_engine(WriterPool))
    file = database_file(Location(str(path)))
    for poolclass in (SQLitePool, ReaderPool):
        engine = make_engine(poolclass)
        assert isinstance(engine.pool, FairPool)
        assert engine.pool not in file.pools
        async with engine.connect():
            pass
        assert engine.pool.database_file is file
        assert engine.pool in file.pools


def test_a_file_nobody_uses_is_forgotten(app: Location) -> None:
    """A process that opens many files keeps nothing of those that it has closed."""
    database_file(app).keeper(app)
    gc.collect()
    assert app.identity not in module._registry.files


def test_it_lives_as_long_as_a_part_of_it(app: Location) -> None:
    """Otherwise, the next caller would get a different turn while the first one is held."""
    turn = database_file(app).turn
    gc.collect()
    keeper = database_file(app).keeper(app)
    assert database_file(app).turn is turn
    del turn
    gc.collect()
    assert database_file(app).keeper(app) is keeper


def test_the_keeper_opens_the_file_as_its_first_user_does(app: Location) -> None:
    """An engine that reads a copy with ``immutable=1`` needs no keeper, and does not affect it."""
    file = database_file(app.with_parameter("immutable", "1"))
    keeper = file.keeper(app.with_parameter("vfs", "unix"))
    assert file.keeper(app) is keeper
    assert dict(keeper.checkpointing._location.parameters) == {"vfs": "unix", "mode": "rw"}


def test_the_turn_of_another_file_is_the_same_for_all(tmp_path: Path) -> None:
    """It is the same turn whether the file is attached or opened."""
    main, other = (database_file(Location(str(tmp_path / name))) for name in ("a.db", "b.db"))
    assert main.turn.turn_of(str(tmp_path / "b.db")) is other.turn


def test_what_is_printed(app: Location) -> None:
    """The repr shows the state of its turn, and the number of readers."""
    assert repr(database_file(app)) == (
        "<DatabaseFile app.db, 0 reading, <WriteTurn app.db, free, 0 waiting>>"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_a_child_can_look_files_up() -> None:
    """This works even if a thread of the parent held the mutex at the moment of the fork."""
    held, forked = threading.Event(), threading.Event()

    def look_up() -> None:
        with module._registry.mutex:
            held.set()
            forked.wait(30)

    thread = threading.Thread(target=look_up)
    thread.start()
    assert held.wait(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(0 if module._registry.mutex.acquire(timeout=5) else 1)
    forked.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0

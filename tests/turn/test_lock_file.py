"""Both ways to lock a file: ``flock()``, and the library for systems without it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sa_sqlite_pool.turn import lock_file
from sa_sqlite_pool.turn.file_turn import FileTurn
from sa_sqlite_pool.turn.lock_file import LockFile, PortableLockFile


@pytest.fixture(params=["flock", "portable"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the file, on a system with ``flock()`` and on one without.

    Threads that still wait with ``flock()``, for other tests' files, continue as they began.
    """
    if request.param == "portable":
        monkeypatch.setattr(lock_file, "FlockFile", lambda path, _: PortableLockFile(path))
    elif lock_file.fcntl is None:  # type: ignore[attr-defined]
        pytest.skip("there is no flock() here")
    return str(tmp_path / "app.db-turn")


def lock(path: str) -> LockFile:
    return lock_file.lock_file(path, path.removesuffix("-turn"))


def test_the_library_serves_where_there_is_no_flock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example is Windows."""
    with monkeypatch.context() as patched:
        patched.setattr(lock_file, "fcntl", None)
        made = lock(str(tmp_path / "app.db-turn"))
    assert isinstance(made, PortableLockFile)


def test_one_at_a_time(path: str) -> None:
    """Two objects are two holders."""
    one, other = lock(path), lock(path)
    assert one.acquire_nowait()
    assert not other.acquire_nowait()
    one.release()
    assert other.acquire_nowait()
    assert not one.acquire_nowait()
    other.release()


def test_taken_twice(path: str) -> None:
    """A lock that was acquired twice is free after one release."""
    one, other = lock(path), lock(path)
    assert one.acquire_nowait()
    assert one.acquire_nowait()
    one.release()
    assert other.acquire_nowait()
    other.release()


def test_waiting_in_a_thread(path: str) -> None:
    """The thread waits until the lock is released."""
    one, other, has_it = lock(path), lock(path), threading.Event()
    assert one.acquire_nowait()

    def wait() -> None:
        other.acquire()
        has_it.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not has_it.is_set()
    one.release()
    thread.join(10)
    assert has_it.is_set()
    assert not one.acquire_nowait()
    other.release()


async def test_a_turn(path: str) -> None:
    """Waiting and giving up work in the same way on both."""
    database = path.removesuffix("-turn")
    one, other = FileTurn(database), FileTurn(database)
    request = one.acquire_nowait()
    assert request is not None
    assert other.acquire_nowait() is None
    assert await other.acquire(0.0) is None
    request.release()
    second = await other.acquire(10.0)
    assert second is not None
    assert one.acquire_nowait() is None
    second.release()

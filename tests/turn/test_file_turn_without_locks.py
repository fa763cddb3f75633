"""The turn between processes where the file system has no locks."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import threading
from pathlib import Path

import pytest

from tests.helpers import until
from tests.turn.file_turns import path, process, start, taken
from tests.turn.locks import (
    Calls,
    blocked,
    calls,
)

__all__ = ["calls", "path"]


class TestNoLocks:
    """On a file system without locks, SQLite's own suffices, except for the order."""

    async def test_go_on_and_say_so_once(
        self, path: Path, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The warning names the file, the reason, the consequence and the remedy."""
        calls.fail = OSError(errno.ENOLCK, "No locks available")
        turn = process(path)
        for _ in range(2):
            taken(turn).release()
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert str(path) in record.message
        assert "No locks available" in record.message
        assert "Put the database on a local file system" in record.message

    async def test_for_want_of_descriptors(
        self, path: Path, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        """This may be temporary, says the warning, which does not blame the file system."""
        turn = process(path)
        calls.fail = OSError(errno.EMFILE, "Too many open files")
        for _ in range(2):
            taken(turn).release()
        [record] = caplog.records
        assert "raise the limit on open files" in record.message
        calls.fail = None
        request = taken(turn)
        assert process(path).acquire_nowait() is None
        request.release()
        calls.fail = OSError(errno.ENOLCK, "No locks available")
        taken(turn).release()
        assert "Put the database on a local file system" in caplog.records[1].message

    async def test_while_waiting(
        self, path: Path, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The same applies if the thread finds out."""
        calls.fail = OSError(errno.ENOLCK, "No locks available")
        turn = process(path)
        request = await turn.acquire(10.0)
        assert request is not None
        request.release()
        assert len(caplog.records) == 1

    async def test_letting_go_fails(self, path: Path, calls: Calls) -> None:
        """The thread survives, and serves the next request."""
        one, other = process(path), process(path)
        request = taken(one)
        assert await other.acquire(0.0) is None
        await until(lambda: blocked(path, "turn") == 1)
        before = calls.count
        calls.fail = OSError(errno.EIO, "Input/output error")
        del one, request
        gc.collect()  # closed, and therefore unlocked
        await until(lambda: calls.count == before + 2)
        calls.fail = None
        second = await asyncio.wait_for(other.acquire(10.0), 5)
        assert second is not None
        second.release()

    async def test_giving_back_fails(self, path: Path, calls: Calls) -> None:
        """The transaction has ended nevertheless."""
        request = taken(process(path))
        calls.fail = OSError(errno.EIO, "Input/output error")
        request.release()

    async def test_no_more_threads(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A task that cannot wait gets an error; a later one can wait."""
        one, other = process(path), process(path)
        request = taken(one)

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await other.acquire(10.0)
        task = await start(path, other)
        request.release()
        second = await asyncio.wait_for(task, 5)
        assert second is not None
        second.release()

    async def test_no_directory(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Opening the database reports that more clearly."""
        taken(process(tmp_path / "missing" / "app.db")).release()
        assert caplog.records == []

"""The thread that waits for the turn between processes, when it runs out of memory for a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sa_sqlite_pool.turn.lock_file import FlockFile
from tests.turn.file_turns import path, process, start, taken

__all__ = ["path"]


async def test_the_task_hears_of_it_and_the_thread_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each later request would wait for a thread that has ended."""
    one, other = process(path), process(path)
    request = taken(one)
    acquire, left = FlockFile.acquire, [MemoryError]

    def fails_once(self: FlockFile) -> Any:
        if left:
            raise left.pop()
        return acquire(self)

    monkeypatch.setattr(FlockFile, "acquire", fails_once)
    with pytest.raises(MemoryError):
        await other.acquire(10)
    task = await start(path, other)
    request.release()
    second = await task
    assert second is not None
    second.release()

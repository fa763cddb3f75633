"""Helpers that the tests of the turn between processes share."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sa_sqlite_pool.turn.file_requests import FileLockRequest
from sa_sqlite_pool.turn.file_turn import FileTurn
from tests.helpers import until
from tests.turn.locks import blocked

ON_LINUX = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not tell who waits"
)


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def process(path: Path, clock: Clock | None = None) -> FileTurn:
    return FileTurn(str(path)) if clock is None else FileTurn(str(path), clock)


def taken(turn: FileTurn) -> FileLockRequest:
    request = turn.acquire_nowait()
    assert request is not None
    return request


async def start(
    path: Path, turn: FileTurn, timeout: float = 10.0
) -> asyncio.Task[FileLockRequest | None]:
    """Return a task that waits in the kernel, for the turn or for the line."""
    before = blocked(path, "turn") + blocked(path, "line")
    task = asyncio.create_task(turn.acquire(timeout))
    await until(lambda: blocked(path, "turn") + blocked(path, "line") > before)
    return task

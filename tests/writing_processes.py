"""Processes that write to one file, through every door."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from sa_sqlite_pool import WriteTimeout
from tests import writers
from tests.children import Child
from tests.helpers import create_items
from tests.programs import Door
from tests.writers import (
    amount,
)

AT_ONCE = 10.0  # seconds; far less than any time-out, and far more than a turn takes


SHORT = 0.5  # the write_timeout of a writer that is to time out


# The door here, and the door of the other process.
DOORS = pytest.mark.parametrize(
    ("door", "other"), [("facade", "swap-in"), ("swap-in", "pools"), ("pools", "facade")]
)


@pytest.fixture(autouse=True)
async def items(path: Path, writer: AsyncEngine) -> None:
    """Create the table, in a file that is not open anywhere."""
    await create_items(writer)
    await writer.dispose()


def writing(door: str, path: Path, **options: Any) -> Child:
    """Return a process that executes commands: see :func:`tests.writers.obey`."""
    child = Child(writers.obey, door, path, options)
    assert child.hear() == "open"
    return child


async def told(child: Child, word: str) -> Any:
    """Send a command and return the response, without blocking the loop."""
    return await asyncio.to_thread(child.ask, word)


@asynccontextmanager
async def going_on(door: Door) -> AsyncIterator[None]:
    """Check that reads are served and the loop is not blocked during the block."""
    reads = 0

    async def read() -> None:
        nonlocal reads
        while True:
            await amount(door)  # a hop to a thread and back
            reads += 1

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    assert reads > 10


@asynccontextmanager
async def refused_after(seconds: float, match: str) -> AsyncIterator[None]:
    """Check that the block times out after ``seconds``: not earlier, and not much later."""
    since = time.monotonic()
    with pytest.raises(WriteTimeout, match=match):
        yield
    assert seconds - 0.01 <= time.monotonic() - since < seconds + AT_ONCE

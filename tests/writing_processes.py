"""Processes that write one file, through every door."""

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

AT_ONCE = 10.0  # seconds; far less than any time-out, far more than a turn takes


SHORT = 0.5  # write_timeout of who shall wait in vain


# The door here, and that of the other process.
DOORS = pytest.mark.parametrize(
    ("door", "other"), [("facade", "swap-in"), ("swap-in", "pools"), ("pools", "facade")]
)


@pytest.fixture(autouse=True)
async def items(path: Path, writer: AsyncEngine) -> None:
    """The table, in a file that nobody has open."""
    await create_items(writer)
    await writer.dispose()


def writing(door: str, path: Path, **options: Any) -> Child:
    """A process that does what it is told: see :func:`tests.writers.obey`."""
    child = Child(writers.obey, door, path, options)
    assert child.hear() == "open"
    return child


async def told(child: Child, word: str) -> Any:
    """What it answers, while the loop goes on."""
    return await asyncio.to_thread(child.ask, word)


@asynccontextmanager
async def going_on(door: Door) -> AsyncIterator[None]:
    """Reads are served and the loop is not held up while the block runs."""
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
    """The block waits in vain: not shorter, and not much longer."""
    since = time.monotonic()
    with pytest.raises(WriteTimeout, match=match):
        yield
    assert seconds - 0.01 <= time.monotonic() - since < seconds + AT_ONCE

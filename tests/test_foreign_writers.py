"""Writers in programs that do not use the package."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.wal.others import OtherProcess
from tests.writers import (
    amount,
    in_line,
    opened,
    tries_counted,
    write,
)
from tests.writing_processes import AT_ONCE, DOORS, SHORT, going_on, items, refused_after, writing

__all__ = ["items"]


@DOORS
async def test_a_foreign_writer_is_waited_for(path: Path, door: str, other: str) -> None:
    """The time-out says that an outside process holds the lock; loop and readers continue."""
    with (
        OtherProcess(path) as foreign,
        writing(other, path) as child,
    ):
        async with opened(door, path, write_timeout=SHORT) as own:
            assert foreign.execute("BEGIN IMMEDIATE") == "[]"
            async with going_on(own), refused_after(SHORT, "outside this package"):
                await write(own)
        async with opened(door, path) as own:
            child.tell("write")
            waiting = asyncio.create_task(write(own))
            await in_line(own)
            assert foreign.execute("COMMIT") == "[]"
            assert await asyncio.to_thread(child.hear) == "write"
            await asyncio.wait_for(waiting, AT_ONCE)
            assert await amount(own) == 2


def test_nobody_here_counts_where_nobody_waits() -> None:
    """``tries_counted()`` records no error if no task waits for SQLite's lock."""
    with tries_counted() as met:
        assert met == []

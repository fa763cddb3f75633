"""Writing to virtual tables is writing: it needs the turn, and readers refuse it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sa_sqlite_pool import ForbiddenWriteError
from tests.helpers import turn_of, until_waiting

from .doors import READERS, Door, is_locked, outside
from .parameters import first
from .test_virtual_tables import CHANGES, Expected, expected

__all__ = ["expected"]

changes = pytest.mark.parametrize("sql", first(4, CHANGES.values(), CHANGES))


@changes
async def test_it_takes_the_lock(door: Door, expected: Expected, sql: str) -> None:
    """A transaction that writes to it acquires SQLite's lock; rollback undoes it."""
    app = await door.open()
    before = _content(app.path)
    async with app.writer.connect() as connection:
        await connection.execute(text(sql))
        if not door.stock:  # which sends no BEGIN before DDL
            assert is_locked(app.path)
        await connection.rollback()
    if not door.stock:
        assert _content(app.path) == before


@changes
async def test_it_waits_for_its_turn(door: Door, expected: Expected, sql: str) -> None:
    """While another task writes, it waits, and then succeeds."""
    if door.stock:
        return  # no turn
    app = await door.open()
    async with app.writer.connect() as writer:
        await writer.execute(text("INSERT INTO busy VALUES (1)"))
        task = asyncio.create_task(app.write(sql))
        await until_waiting(1, turn_of(app.path))
        assert not task.done()
        await writer.commit()
    await task


@pytest.mark.parametrize(
    "reading", [way for way in READERS if way[1] != "auto"], indirect=True, ids="-".join
)
async def test_readers_refuse(reading: Door, expected: Expected, subtests: pytest.Subtests) -> None:
    """Each way to write to it is refused by name, before and after it was read."""
    app = await reading.open()
    before = _content(app.path)
    for name, sql in CHANGES.items():
        with subtests.test(name):
            for _ in range(2):
                with pytest.raises(DBAPIError) as caught:
                    async with app.enter() as connection:
                        await connection.execute(text("SELECT count(*) FROM five"))
                        await connection.execute(text(sql))
                assert isinstance(caught.value.orig, ForbiddenWriteError)
    assert _content(app.path) == before


def _content(path: Path) -> list[tuple[object, ...]]:
    with outside(path) as connection:
        return [
            *connection.execute("SELECT name, sql FROM sqlite_master ORDER BY 1"),
            *connection.execute("SELECT rowid, body FROM five"),
            *connection.execute("SELECT * FROM five_config"),
            *connection.execute("SELECT * FROM boxes"),
        ]

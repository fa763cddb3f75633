"""A program writes in ``begin_nested()`` and does not commit, which the stock driver does itself.

Python's ``sqlite3`` sends no BEGIN before a SAVEPOINT, and the RELEASE of an outermost one is a
COMMIT. Here a BEGIN is sent, and the savepoint is part of its transaction.
"""

from __future__ import annotations

import pytest
from sqlalchemy import text

from .doors import Application, Door

INSERT = text("INSERT INTO item VALUES (1)")
COUNT = "SELECT count(*) FROM item"


async def opened(door: Door) -> Application:
    app = await door.open()
    await app.write("CREATE TABLE item (i)")
    return app


@pytest.mark.parametrize("undo", [True, False])
async def test_without_a_commit(door: Door, undo: bool) -> None:
    """The write is not visible to others, and is undone with its transaction."""
    app = await opened(door)
    async with app.session() as session:
        async with session.begin_nested():
            await session.execute(INSERT)
        assert await app.value(COUNT) == door.stock
        if undo:
            await session.rollback()
    assert await app.value(COUNT) == door.stock


async def test_with_a_commit(door: Door) -> None:
    app = await opened(door)
    async with app.session() as session:
        async with session.begin_nested():
            await session.execute(INSERT)
        await session.commit()
    assert await app.value(COUNT) == 1

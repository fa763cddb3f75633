"""Queries about a connection's own writes, made after the commit."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, text

from .doors import Door


@pytest.mark.parametrize(
    "question", [text("SELECT last_insert_rowid()"), select(func.last_insert_rowid())], ids=str
)
async def test_the_last_row(door: Door, question: object) -> None:
    """The connection that has inserted it returns it before and after the commit."""
    app = await door.open()
    await app.write("CREATE TABLE t (id INTEGER PRIMARY KEY, x)", "INSERT INTO t VALUES (6, 0)")
    async with app.session() as session:
        await session.execute(text("INSERT INTO t (x) VALUES (1)"))
        assert await session.scalar(question) == 7  # type: ignore[call-overload]
        await session.commit()
        assert await session.scalar(question) == 7  # type: ignore[call-overload]
        assert await session.scalar(text("SELECT changes()")) == 1

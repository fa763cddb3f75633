"""An auto session whose reader is beside its transaction, and the operations on it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tests.helpers import (
    UPDATE_FIRST,
    Item,
    until,
)
from tests.sessions.beside import Maker, checked_out

TOTAL = select(func.sum(Item.amount))

MANY = 300


async def read(session: AsyncSession) -> int:
    return int(await session.scalar(TOTAL) or 0)


async def write(session: AsyncSession) -> None:
    await session.execute(UPDATE_FIRST)


async def committed(maker: Maker) -> None:
    """Increase the amount by one in another session."""
    async with maker(role="writer") as other, other.begin():
        await write(other)


async def stream(session: AsyncSession) -> Any:
    """Return a stream of many rows, after the first one has been read."""
    result = await session.stream(
        text(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) "
            "SELECT i, (SELECT sum(amount) FROM items) AS total FROM n"
        ),
        execution_options={"yield_per": 10},
    )
    assert await result.fetchone() is not None
    return result


async def until_free_of(*engines: AsyncEngine) -> None:
    await until(lambda: checked_out(*engines) == 0)

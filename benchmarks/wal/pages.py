"""A table with about four rows per page: an update of 500 random rows writes 2 MiB to the log."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from ..databases.files import total

ROWS = 50_000
ROWS_A_TRANSACTION = 500

_PAGES = Table(
    "pages",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("v", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
_FILL = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :rows) "
    "INSERT INTO pages SELECT i, 0, randomblob(1000) FROM n"
)
_ADD_ONE = update(_PAGES).where(_PAGES.c.id == bindparam("key")).values({"v": _PAGES.c.v + 1})
_ADD_ROW = insert(_PAGES)
_BODY = bytes(1_000)
_SUM = select(func.sum(_PAGES.c.v)).where(_PAGES.c.id <= 100)


def fill(connection: Connection) -> None:
    """Create the table, of about 60 MiB."""
    _PAGES.create(connection)
    connection.execute(_FILL, {"rows": ROWS})


def batches(seed: int) -> Iterator[Sequence[int]]:
    """Yield the rows of one transaction after the other, endlessly."""
    chooser = random.Random(seed)
    while True:
        yield chooser.sample(range(1, ROWS + 1), ROWS_A_TRANSACTION)


async def update_rows(session: AsyncSession, keys: Sequence[int]) -> None:
    """Add 1 to each, in one ``executemany``."""
    await session.execute(_ADD_ONE, [{"key": key} for key in keys])


async def add_rows(session: AsyncSession) -> None:
    """Add half a MiB of rows, in one ``executemany``; only for runs that keep no books."""
    await session.execute(_ADD_ROW, [{"v": 0, "body": _BODY}] * ROWS_A_TRANSACTION)


async def look(session: AsyncSession) -> int:
    """Return what the session sees: a number that most transactions change."""
    seen: int = (await session.execute(_SUM)).scalar_one()
    return seen


def transactions(database: Path) -> int:
    """Return the number of transactions whose effect is in the file."""
    return total(database, "v", "pages") // ROWS_A_TRANSACTION

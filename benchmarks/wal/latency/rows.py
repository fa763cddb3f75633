"""A table with three indexes: moving one row in all of them dirties about seven pages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from ...databases.files import total

ROWS = 100_000
_FAR = 2**31

_ROWS = Table(
    "rows",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("v", Integer, nullable=False),
    Column("x", Integer, nullable=False, index=True),
    Column("y", Integer, nullable=False, index=True),
    Column("z", Integer, nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
)
_FILL = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :rows) "
    "INSERT INTO rows "
    "SELECT i, 0, random() >> 32, random() >> 32, random() >> 32, randomblob(200) FROM n"
)
_MOVE = (
    update(_ROWS)
    .where(_ROWS.c.id == bindparam("key"))
    .values(
        {
            "v": _ROWS.c.v + 1,
            "x": bindparam("to_x"),
            "y": bindparam("to_y"),
            "z": bindparam("to_z"),
        }
    )
)

Move = dict[str, int]


def fill(connection: Connection) -> None:
    """Create the table, of about 30 MiB."""
    _ROWS.create(connection)
    connection.execute(_FILL, {"rows": ROWS})


def moves(seed: int) -> Iterator[Move]:
    """Yield an endless sequence of rows and their new places."""
    chooser = random.Random(seed)
    while True:
        place = {name: chooser.randrange(-_FAR, _FAR) for name in ("to_x", "to_y", "to_z")}
        yield {"key": chooser.randint(1, ROWS), **place}


async def move_row(session: AsyncSession, move: Move) -> None:
    """Move one row with one UPDATE."""
    await session.execute(_MOVE, move)


def transactions(database: Path) -> int:
    """Return the number of transactions whose effect is in the file."""
    return total(database, "v", "rows")
